"""Losses: what training pulls at, as plain maths, and the frozen or learning networks some of them look through."""
