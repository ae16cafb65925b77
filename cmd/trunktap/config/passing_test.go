package config

import (
	"fmt"
	"strings"
	"testing"
)

func TestPassingFaults(t *testing.T) {
	for name, test := range map[string]struct{ keys, want string }{
		"a line end":       {"    headers: {to_external: {set: {X-A: \"a\\r\\nVia: x\"}}}\n", `5:40: trunks[0].headers.to_external.set.X-A: the value is too long, or has control characters`},
		"compact, capital": {"    headers: {to_external: {remove: [I]}}\n", `trunks[0].headers.to_external.remove[0]: "I" is needed by SIP itself`},
		"once":             {"    headers: {to_external: {add: {user-agent: x}}}\n", `trunks[0].headers.to_external.add.user-agent: "user-agent" may be in a message once: give it to set`},
		"twice":            {"    headers: {to_internal: {responses: {set: {Subject: x, s: y}}}}\n", `trunks[0].headers.to_internal.responses.set.s: "s" is "Subject" again`},
		"grows":            {"    headers: {to_internal: {set: {" + grown(9) + "}}}\n", `trunks[0].headers.to_internal.set: messages grow by 9081 bytes; allowed: at most 8192 in set and add together`},
		"structural":       {"    headers: {to_external: {set: {Via: x}}}\n", `5:40: trunks[0].headers.to_external.set.Via: "Via" is needed by SIP itself`},
		"compact":          {"    headers: {to_internal: {remove: [i]}}\n", `"i" is needed by SIP itself`},
		"line end":         {"    headers: {to_external: {responses: {add: {X-A: \"a\\r\\nVia: x\"}}}}\n", "the value is too long, or has control characters"},
		"star":             {"    headers: {to_external: {pass_only: [\"X-*-A\"]}}\n", `"X-*-A" is no name of a header field`},
		"interval":         {"    session_expires: 2m\n    min_se: 3m\n", "trunks[0].session_expires: 2m is less than min_se, 3m"},
		"seconds":          {"    session_expires: 100s500ms\n", "is no whole number of seconds"},
		"least":            {"    min_se: 30s\n", "30s is out of range"},
	} {
		_, faults := Parse("t.yaml", []byte(strings.TrimSuffix(minimal, "\n")+"\n"+test.keys))
		if len(faults) != 1 || !strings.Contains(faults[0].String(), test.want) {
			t.Errorf("%s: %v, want %s", name, faults, test.want)
		}
	}
}

func TestPassing(t *testing.T) {
	c := mustParse(t, minimal+"    headers: {to_external: {remove: [User-Agent, \"X-*\", \"*\"], set: {User-Agent: us, X-N: 3}, responses: {set: {Server: us}}}}\n    session_timer: keep\n")
	p := c.Trunks[0].Passing
	if p.ToExternal.Requests.Set["X-N"] != "3" || p.ToExternal.Responses.Set["Server"] != "us" || len(p.ToExternal.Requests.Remove) != 3 || p.SessionTimer != "keep" {
		t.Errorf("%+v", p)
	}
}

// grown are so many header fields of 1009 bytes.
func grown(n int) string {
	var out []string
	for i := range n {
		out = append(out, fmt.Sprintf("X-%d: %s", i, strings.Repeat("x", 1002)))
	}
	return strings.Join(out, ", ")
}
