"""Does a search down from a trained network keep more accuracy than other ways to the same latency?"""
