"""Contract suites, fakes and real servers for tests, ours and those of connector authors."""
