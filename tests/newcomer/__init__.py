"""What somebody would add to the library, each in one file; `test_newcomer` holds them against their formulas."""
