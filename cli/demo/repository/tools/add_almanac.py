"""Write the almanac month by month: slow work that goes on from the months that are there already."""

import calendar
import time
from pathlib import Path

folder = Path("textkit/almanac")
folder.mkdir(exist_ok=True)
(folder / "__init__.py").touch()
for number in range(1, 13):
    month = folder / f"month_{number:02}.txt"
    if not month.exists():
        time.sleep(0.2)
        month.write_text(calendar.TextCalendar().formatmonth(2026, number))
Path("tests/test_almanac.py").write_text(
    "import unittest\nfrom pathlib import Path\n\n\n"
    "class Test(unittest.TestCase):\n    def test_twelve_months(self) -> None:\n"
    "        self.assertEqual(len(list(Path('textkit/almanac').glob('month_*.txt'))), 12)\n"
)
