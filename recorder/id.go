package recorder

import "strings"

// KindOf tells the kind of a recording by its id, for want of an account that
// tells it: a call's first recording has the id of its session, the others one
// with a suffix.
func KindOf(id string) Kind {
	i := strings.LastIndex(id, "-")
	if i < 0 || !strings.Contains(id[:i], "-") { // the id of a session has one dash
		return KindTrunk
	}
	for kind, suffix := range suffixes {
		if n, ok := strings.CutPrefix(id[i+1:], suffix); ok && n != "" && strings.Trim(n, "0123456789") == "" {
			return kind
		}
	}
	return KindTrunk
}
