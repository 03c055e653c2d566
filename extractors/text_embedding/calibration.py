"""What 8-bit arithmetic costs a model: the same texts through both precisions, compared when the model is loaded.

How much is lost depends on the weights, so figures of another checkpoint say nothing about this one.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from extractors.contract import Vectors

WARN_ABOVE: Final = 2e-3
REFUSE_ABOVE: Final = 1e-2
REFUSE_UNDER: Final = 0.95
_NEAREST: Final = 10


@dataclass(frozen=True, slots=True)
class Loss:
    """How far vectors are from the exact ones.

    Attributes:
        mean: of 1 - cosine between a text's two vectors.
        worst: the largest of these.
        overlap: of a text's ten nearest among the others, the share that are the same; mean over the texts.
        texts: how many were compared.
    """

    mean: float
    worst: float
    overlap: float
    texts: int

    @property
    def is_much(self) -> bool:
        """Whether a user should hear of it."""
        return self.mean > WARN_ABOVE

    @property
    def is_too_much(self) -> bool:
        """Whether searches would suffer."""
        return self.mean > REFUSE_ABOVE or self.overlap < REFUSE_UNDER

    def __str__(self) -> str:
        return (
            f"mean of 1 - cosine {self.mean:.1e}, allowed {REFUSE_ABOVE:.0e}; nearest ten the same "
            f"{self.overlap:.1%}, wanted {REFUSE_UNDER:.0%}; over {self.texts} texts"
        )


def compare(exact: Vectors, other: Vectors) -> Loss:
    """Compare vectors with the exact ones.

    Args:
        exact: float32[n, D], unit length; more than eleven of them.
        other: float32[n, D], of the same texts.
    """
    distance = 1 - np.einsum("nd,nd->n", exact, other)
    return Loss(float(distance.mean()), float(distance.max()), _overlap(exact, other), len(exact))


def _overlap(exact: Vectors, other: Vectors) -> float:
    """Return the mean share of each text's nearest ten that both kinds of vectors agree on."""
    nearest = []
    for vectors in (exact, other):
        similar = vectors @ vectors.T
        np.fill_diagonal(similar, -np.inf)
        nearest.append(np.argsort(-similar, axis=1)[:, :_NEAREST])
    shared = [len(set(one) & set(two)) for one, two in zip(*(each.tolist() for each in nearest), strict=True)]
    return float(np.mean(shared)) / _NEAREST


# Sixteen languages and four subjects, from two words to a paragraph: a text's nearest are those of its subject.
TEXTS: Final = (
    "The harbour freezes in January, and the ferries stay on the island until the ice is gone.",
    "A recipe for bread: flour, water, salt and a spoon of yeast. Knead it, let it rise overnight, bake it hot.",
    "The court decided that the contract was void, because one of the parties had not been told of the debt.",
    "Restart the server after you change the port.",
    "Der Hafen friert im Januar zu, und die Fähren bleiben auf der Insel, bis das Eis weg ist.",
    "Brot backen: Mehl, Wasser, Salz und ein Löffel Hefe, über Nacht gehen lassen.",
    "Das Gericht erklärte den Vertrag für nichtig, weil eine Seite von den Schulden nichts wusste.",
    "Starten Sie den Server neu, nachdem Sie den Port geändert haben.",
    "Le port gèle en janvier et les bateaux restent à quai.",
    "Pour faire du pain il faut de la farine, de l'eau, du sel et un peu de levure.",
    "Le tribunal a annulé le contrat.",
    "Redémarrez le serveur après avoir changé de port.",
    "El puerto se hiela en enero y los barcos no salen hasta la primavera.",
    "Receta de pan: harina, agua, sal y levadura; se deja reposar toda la noche y se hornea por la mañana.",
    "El juez anuló el contrato porque no se había informado de la deuda a una de las partes.",
    "Reinicie el servidor.",
    "Il porto gela a gennaio e i traghetti restano fermi.",
    "Pane fatto in casa con farina, acqua, sale e lievito.",
    "Il tribunale ha dichiarato nullo il contratto di vendita.",
    "Dopo aver cambiato la porta riavviare il server.",
    "O porto congela em janeiro, e os barcos esperam pelo degelo.",
    "Para o pão: farinha, água, sal e fermento.",
    "O contrato foi anulado pelo tribunal.",
    "Reinicie o servidor depois de mudar a porta.",
    "De haven vriest in januari dicht en de veerboten blijven liggen.",
    "Brood bakken met bloem, water, zout en gist.",
    "De rechter verklaarde de overeenkomst nietig.",
    "Start de server opnieuw nadat de poort is gewijzigd.",
    "Гавань замерзает в январе, и паромы стоят у острова, пока не сойдёт лёд.",
    "Хлеб: мука, вода, соль и дрожжи.",
    "Суд признал договор недействительным, так как о долге не сообщили.",
    "Перезапустите сервер после смены порта.",
    "Port zamarza w styczniu i promy nie pływają.",
    "Chleb piecze się z mąki, wody, soli i drożdży.",
    "Sąd unieważnił umowę.",
    "Po zmianie portu uruchom serwer ponownie.",
    "Liman ocak ayında donar ve feribotlar adada kalır.",
    "Ekmek için un, su, tuz ve maya gerekir.",
    "Mahkeme sözleşmeyi geçersiz saydı.",
    "Portu değiştirdikten sonra sunucuyu yeniden başlatın.",
    "Satama jäätyy tammikuussa, ja lautat jäävät saareen.",
    "Leipään tarvitaan jauhoja, vettä, suolaa ja hiivaa.",
    "Tuomioistuin julisti sopimuksen pätemättömäksi.",
    "Käynnistä palvelin uudelleen.",
    "يتجمد الميناء في شهر يناير وتبقى العبارات في الجزيرة.",
    "لصنع الخبز نحتاج إلى الدقيق والماء والملح والخميرة.",
    "أبطلت المحكمة العقد.",
    "أعد تشغيل الخادم بعد تغيير المنفذ.",
    "बंदरगाह जनवरी में जम जाता है और नावें द्वीप पर रुकी रहती हैं।",
    "रोटी के लिए आटा, पानी, नमक और खमीर चाहिए।",
    "अदालत ने अनुबंध को अमान्य घोषित किया।",
    "पोर्ट बदलने के बाद सर्वर को फिर से चालू करें।",
    "港口在一月结冰,渡轮停在岛上,直到冰融化。",
    "做面包需要面粉、水、盐和酵母,放一夜再烤。",
    "法院宣布合同无效,因为一方不知道债务。",
    "更改端口后请重新启动服务器。",
    "港は一月に凍り、氷が解けるまでフェリーは島に留まる。",
    "パンの材料は小麦粉、水、塩、イースト。",
    "裁判所は契約を無効とした。",
    "ポートを変更したらサーバーを再起動してください。",
    "항구는 일월에 얼고 배는 섬에 머문다.",
    "빵을 만들려면 밀가루, 물, 소금, 효모가 필요하다.",
    "법원은 계약을 무효로 판결했다.",
    "포트를 바꾼 뒤 서버를 다시 시작하십시오.",
)
