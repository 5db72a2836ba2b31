"""``python -m antpitta``."""

try:
    from antpitta.cli import main
except KeyboardInterrupt:  # before a command could begin
    raise SystemExit(130) from None

if __name__ == "__main__":
    main()
