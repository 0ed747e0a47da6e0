"""The ledger: rows, what their columns mean, and where they are kept."""

from odefend.ledger.storage import Label as Label
from odefend.ledger.storage import Ledger as Ledger
from odefend.ledger.storage import canonical as canonical
from odefend.ledger.storage import digest as digest
