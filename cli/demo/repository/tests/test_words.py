import unittest

from textkit import words


class WordsTest(unittest.TestCase):
    def test_greeting(self) -> None:
        self.assertEqual(words.greet("Ada"), "Hello, Ada!")
