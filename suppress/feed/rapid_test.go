package feed

import "flag"

// The properties meet the same values in each run; -rapid.seed=0 gives others each time.
var _ = flag.Set("rapid.seed", "1")
