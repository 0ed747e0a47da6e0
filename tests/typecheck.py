"""How types are checked at run time under pytest: by beartype, which accepts an int where a float is asked for."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
