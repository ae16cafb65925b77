package config

import (
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// Bounds of lists of siprec, in elements.
const (
	siprecSourcesMax = 1000
	siprecRulesMax   = 1000
	domainsMax       = 1000
	joinHeadersMax   = 16
)

// SIPREC is where recording sessions are taken (RFC 7866).
type SIPREC struct {
	Listen  []Listener // empty: nowhere
	Sources []SIPRECSource
}

// SIPRECSource is a recording client: an SBC, a gateway, a PBX.
type SIPRECSource struct {
	Name            string
	Peers           []netip.Prefix
	MediaAddress    netip.Addr // zero: that of Media
	SRTP            string     // off | optional | required
	SRTPMethod      string     // sdes | dtls
	SRTPSuites      []string
	InternalDomains []string
	Caller          string // external | internal | unknown
	Mixed           string // external | internal
	Sides           []SIPRECSide
	JoinHeaders     []string
	JoinWindow      time.Duration
	Recording       TrunkRecording
}

// SIPRECSide puts a party on a side.
type SIPRECSide struct {
	AOR, Name, Label, Value string // patterns, at least one
	Side                    string // external | internal
}

func siprecTable(c *SIPREC) *node {
	return key("siprec", "Recording sessions that are sent here by SIPREC (RFC 7866). Over TLS with the certificate and the client_ca of sip.tls. See docs/siprec.md.", object(
		key("listen", "The sockets that recording sessions are taken from; others than those of sip.listen.",
			list(&c.Listen, 0, listenMax, sipListener)).shown(`["tcp://0.0.0.0:5070", "udp://0.0.0.0:5070"]`).lively().atStart(),
		key("sources", "Who sends them, as what a trunk is for calls.", list(&c.Sources, 0, siprecSourcesMax, siprecSourceTable)),
	)).apart()
}

func siprecSourceTable(s *SIPRECSource) *node {
	return object(
		key("name", "Its name in recordings, listings and metrics; no trunk may have the same.", name(&s.Name)).must().shown("sbc-1"),
		key("peers", "Who may send. Of several sources the one with the longest prefix counts.", list(&s.Peers, 1, peersMax, peer)).must().shown("[198.51.100.7/32]"),
		key("media_address", "The address advertised in SDP. Without the key: media.address.", mediaAddress(&s.MediaAddress)).shown("203.0.113.10"),
		key("srtp", "Whether the streams are protected (RFC 3711). optional: where the client can. required: else sessions are refused.",
			choice(&s.SRTP, []string{"off", "optional", "required"}, nil)).is("off"),
		key("srtp_method", "How keys are agreed on where the client leaves the choice: sdes (RFC 4568) or dtls (RFC 5763).",
			choice(&s.SRTPMethod, []string{"sdes", "dtls"}, nil)).is("sdes"),
		key("srtp_suites", "The suites allowed, by preference. Without the key: all.",
			list(&s.SRTPSuites, 1, len(srtpSuites), srtpSuite)).shown("[AEAD_AES_256_GCM, AES_CM_128_HMAC_SHA1_80]"),
		key("internal_domains", "The domains of internal parties' addresses, with those below them; an address of another domain is an external party's.",
			list(&s.InternalDomains, 1, domainsMax, peerName)).shown("[pbx.example.net]"),
		key("caller", "Where calls come from, for clients that say who called and nothing else that tells the sides.",
			choice(&s.Caller, []string{"unknown", "external", "internal"}, nil)).is("unknown"),
		key("sides", "Rules that put parties on a side, before all else; the first that matches counts.", list(&s.Sides, 0, siprecRulesMax, siprecSideTable)),
		key("mixed", "The channel of a stream in which several parties are heard.", choice(&s.Mixed, []string{"external", "internal"}, nil)).is("external"),
		key("join_headers", "Header fields whose equal values join the dialogs of one call. Those that share a session of the metadata, and both ends that a built-in bridge sends, are joined without it.",
			list(&s.JoinHeaders, 1, joinHeadersMax, headerToken)).shown("[Cisco-Guid]"),
		key("join_window", "How long after the first dialog another may join by a header field.", duration(&s.JoinWindow, time.Second, 10*time.Minute)).is("10s"),
		trunkRecordingTable(&s.Recording),
	)
}

func siprecSideTable(s *SIPRECSide) *node {
	return object(
		key("aor", "A pattern of the party's address, with or without its scheme, in which * is any text.", text(&s.AOR)).shown(`"sip:*@pbx.example.net"`),
		key("name", "A pattern of the party's name.", text(&s.Name)).shown(`"Agent *"`),
		key("label", "A pattern of the stream's label.", text(&s.Label)).shown(`"1"`),
		key("value", "The name of an element among the party's extensions, =, and a pattern of its text.", text(&s.Value)).shown(`"role=agent"`),
		key("side", "Where whoever matches all of these is.", choice(&s.Side, []string{"external", "internal"}, nil)).must().shown("internal"),
	)
}

// headerToken is the name of any header field.
func headerToken(target *string) *node {
	return leaf(target, "the name of a header field", map[string]any{"type": "string", "minLength": 1, "maxLength": 64}, func(s scalar) (string, *wrong) {
		if s.kind != stringScalar || !headerName.MatchString(s.text) {
			return "", wrongf("%v is no name of a header field", s)
		}
		return s.text, nil
	})
}

// recorded is what is recorded under one name, with its path in the file.
type recorded struct {
	path string
	*TrunkRecording
}

// recordings lists the settings of trunks and of sources of SIPREC.
func (c *Config) recordings() []recorded {
	var out []recorded
	for i := range c.Trunks {
		out = append(out, recorded{fmt.Sprintf("trunks[%d].recording", i), &c.Trunks[i].Recording})
	}
	for i := range c.SIPREC.Sources {
		out = append(out, recorded{fmt.Sprintf("siprec.sources[%d].recording", i), &c.SIPREC.Sources[i].Recording})
	}
	return out
}

// checkSIPREC holds what the keys of siprec cannot tell alone.
func (d *decoder) checkSIPREC(c *Config) {
	s := &c.SIPREC
	if len(c.Trunks)+len(s.Sources) == 0 && d.given("siprec") && !d.given("trunks") && !d.given("siprec.sources") {
		d.faultAt("siprec.sources", "there are neither sources nor trunks", "at least one of both")
	}
	if len(s.Sources) > 0 && !d.given("siprec.listen") {
		d.faultAt("siprec.listen", "the key is missing, and there are sources", "a list, each "+sipListener(new(Listener)).want)
	}
	for i, l := range s.Listen {
		path := fmt.Sprintf("siprec.listen[%d]", i)
		if secured(l.Transport) && c.SIP.TLS.Cert == "" {
			d.faultAt(path, l.Transport+":// needs a certificate", "with sip.tls.cert and sip.tls.key")
		}
		for k, o := range c.SIP.Listen {
			if (o.Transport == "udp") == (l.Transport == "udp") && clash(l.Addr, o.Addr) && c.Relays() {
				d.faultAt(path, fmt.Sprintf("%s is taken by sip.listen[%d]", l.Addr, k), "a port of its own")
			}
		}
		if p := l.Addr.Port(); l.Transport == "udp" && p >= c.Media.Ports.First && p <= c.Media.Ports.Last {
			d.faultAt(path, fmt.Sprintf("port %d lies among media.ports", p), "a port outside them")
		}
	}
	names := map[string]string{}
	for i := range c.Trunks {
		names[c.Trunks[i].Name] = fmt.Sprintf("trunks[%d]", i)
	}
	for i := range s.Sources {
		d.checkSource(fmt.Sprintf("siprec.sources[%d]", i), &s.Sources[i], names)
	}
}

func (d *decoder) checkSource(path string, s *SIPRECSource, names map[string]string) {
	if first, ok := names[s.Name]; ok && s.Name != "" {
		d.faultAt(path+".name", fmt.Sprintf("%q is the name of %s", s.Name, first), "a name of its own")
	}
	names[s.Name] = path
	d.checkSRTP(path, &Side{SRTPMethod: s.SRTPMethod, SRTPSuites: s.SRTPSuites})
	for i, r := range s.Sides {
		at := fmt.Sprintf("%s.sides[%d]", path, i)
		if r.AOR+r.Name+r.Label+r.Value == "" && d.given(at) {
			d.faultAt(at, "nothing says whom it is about", "with aor, name, label or value")
		}
		if k := strings.IndexByte(r.Value, '='); r.Value != "" && k <= 0 {
			d.faultAt(at+".value", fmt.Sprintf("%q is no name with a pattern", r.Value), "such as role=agent")
		}
	}
	for _, x := range []struct {
		wrong     bool
		key, said string
	}{
		{s.Recording.Beep.Enabled, ".recording.beep", "nothing can be mixed into calls that are sent here by SIPREC"},
		{s.Recording.Announce.File != "", ".recording.announce", "nothing can be played into calls that are sent here by SIPREC"},
	} {
		if x.wrong {
			d.faultAt(path+x.key, x.said, "to leave it out")
		}
	}
}
