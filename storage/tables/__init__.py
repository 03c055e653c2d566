"""The tables. One file holds a row class and all the SQL that touches it.

Functions called for a user's request take a `Scope` (or an organization) and put it into every WHERE clause.
"""
