"""Does the search find better children than chance, scaling, and an ungated search on the same supernet do?"""
