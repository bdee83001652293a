"""`python -m mobile_avatar` is the `mobile-avatar` command; torchrun starts it as a module."""

from mobile_avatar.cli.main import main

if __name__ == "__main__":
    main()
