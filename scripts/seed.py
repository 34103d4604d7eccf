"""Demo data."""


def main() -> None:
    return


if __name__ == "__main__":
    main()
