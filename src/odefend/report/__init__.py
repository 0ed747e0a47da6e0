"""Reports: tables and figures as pure functions of ledger rows, and the page that shows them."""

from odefend.report.page import Page as Page
from odefend.report.page import Section as Section
from odefend.report.page import write_page as write_page
from odefend.report.table import Table as Table
