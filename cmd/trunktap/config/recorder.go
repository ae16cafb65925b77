package config

import (
	"regexp"
	"strings"
)

const (
	recorderWant    = "sip:[user@]host[:port][;transport=udp|tcp|tls], such as sip:record@10.0.0.9:5060;transport=tcp"
	recorderPattern = `^sip:([A-Za-z0-9._~!*'()&=+$,?/-]+@)?[^@\s]+$`
)

var recorderShape = regexp.MustCompile(`^sip:([A-Za-z0-9._~!*'()&=+$,?/-]+@)?([^@\s]+)$`)

// otherRecorder is the URI of a recorder: that of a next hop, perhaps with a user.
func otherRecorder(target *Recorder) *node {
	return leaf(target, recorderWant, map[string]any{"type": "string", "pattern": recorderPattern}, func(s scalar) (Recorder, *wrong) {
		m := recorderShape.FindStringSubmatch(s.text)
		if s.kind != stringScalar || m == nil {
			return Recorder{}, wrongf("%v is no SIP URI of a recorder", s)
		}
		var hop NextHop
		w := nextHop(&hop).set(scalar{kind: stringScalar, text: "sip:" + m[2]})
		if w == nil && strings.HasPrefix(hop.Transport, "ws") {
			w = wrongf("%v is reached over WebSocket, which is not done", s)
		}
		return Recorder{URI: s.text, Hop: hop.plain()}, w
	})
}
