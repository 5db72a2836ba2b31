"""``python -m antpitta``."""

from antpitta.cli import main

if __name__ == "__main__":
    main()
