"""The wire, and nothing else: HTTP in and out, and the two vendors' formats. It knows `answer`, never an engine."""
