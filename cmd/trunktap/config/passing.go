package config

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Bounds of rules for header fields; sip has the same.
const (
	headerEditsMax     = 64
	headerEditBytesMax = 1024
	headerEditGrowsMax = 8192 // bytes, of all of set and add
)

// SingleHeaders are those that a message may have once, with their compact forms.
var SingleHeaders = strings.Fields(`User-Agent Server Date Expires Min-Expires Organization Priority Subject Timestamp Retry-After Reply-To
	Content-Disposition Replaces Join Target-Dialog Referred-By Refer-Sub Session-ID P-Charging-Vector SIP-ETag SIP-If-Match
	Answer-Mode Priv-Answer-Mode Content-ID s b`)

// shortHeaders are the compact forms of what rules may touch.
var shortHeaders = map[string]string{"a": "accept-contact", "b": "referred-by", "d": "request-disposition", "j": "reject-contact", "k": "supported", "n": "identity-info", "s": "subject", "u": "allow-events", "y": "identity"}

// StructuralHeaders are those that no rule may touch, with their compact forms; a
// test beside the wiring holds them to what sip says.
var StructuralHeaders = strings.Fields(`Via Route Record-Route From To Call-ID CSeq Max-Forwards Contact Content-Length Content-Type
	Content-Encoding MIME-Version RAck RSeq Require Proxy-Require Event Subscription-State Refer-To Session-Expires Min-SE
	v f t i m l c e o r x`)

var headerName = regexp.MustCompile("^[-.!%*_+`'~A-Za-z0-9]{1,64}$")

// headerFault says why a name may stand in no rule.
func headerFault(name string) *wrong {
	switch {
	case !headerName.MatchString(name) || strings.Contains(name, "*"):
		return wrongf("%q is no name of a header field", name)
	case slices.ContainsFunc(StructuralHeaders, func(s string) bool { return strings.EqualFold(s, name) }):
		return wrongf("%q is needed by SIP itself", name)
	}
	return nil
}

// Passing is what changes of messages on their way through a trunk.
type Passing struct {
	Identity       string        // transparent | hide
	SessionTimer   string        // pass | keep | off
	SessionExpires time.Duration // of keep: asked for
	MinSE          time.Duration // of keep: the least that is taken
	ToExternal     HeaderRules
	ToInternal     HeaderRules
}

// HeaderRules change header fields on their way to one side.
type HeaderRules struct {
	Requests  HeaderEdit
	Responses HeaderEdit
}

// HeaderEdit changes the header fields of messages. Names may end in *.
type HeaderEdit struct {
	PassOnly []string
	Remove   []string
	Set      map[string]string
	Add      map[string]string
}

// passingFields are the keys of a trunk about what changes on the way through it.
func passingFields(p *Passing) []*node {
	return []*node{
		key("identity", "transparent keeps Call-ID, tags and CSeq across the trunk. hide: each side sees a dialog of our own, and no address of the other; see docs/b2bua.md.",
			choice(&p.Identity, []string{"transparent", "hide"}, nil)).is("transparent"),
		key("session_timer", "Session timers (RFC 4028). pass: the parties agree on them. keep: each side has one, which the daemon refreshes where the party does not, so that a dead one is found out. off: the sides hear nothing of them from each other.",
			choice(&p.SessionTimer, []string{"pass", "keep", "off"}, nil)).is("pass"),
		key("session_expires", "The interval asked for with session_timer: keep.", duration(&p.SessionExpires, 90*time.Second, 24*time.Hour)).is("30m"),
		key("min_se", "Shorter intervals are refused with 422, with session_timer: keep.", duration(&p.MinSE, 90*time.Second, 24*time.Hour)).is("90s"),
		key("headers", "What becomes of header fields, by the side that messages go to. What SIP itself needs (Via, From, Contact, Content-Length and the like) is never touched.", object(
			headerRules("to_external", "Towards the carrier.", &p.ToExternal),
			headerRules("to_internal", "Towards the PBX.", &p.ToInternal),
		)),
	}
}

func headerRules(name, doc string, r *HeaderRules) *node {
	fields := append(headerEdit(&r.Requests), key("responses", "The same for responses.", object(headerEdit(&r.Responses)...)))
	return key(name, doc, object(fields...))
}

func headerEdit(e *HeaderEdit) []*node {
	return []*node{
		key("pass_only", "Header fields that pass, beside those that have a meaning in SIP; all others do not. Without the key: all pass.",
			list(&e.PassOnly, 1, headerEditsMax, headerPattern)).shown("[P-Asserted-Identity, X-Carrier-*]"),
		key("remove", "Header fields that do not pass, such as [User-Agent, \"X-*\"].", list(&e.Remove, 0, headerEditsMax, headerPattern)).is("[]"),
		key("set", "Header fields that are put in the place of what came, or added.", headerFields(&e.Set, nil)).shown("{User-Agent: trunktap}"),
		key("add", "Header fields that are added to what came.", headerFields(&e.Add, SingleHeaders)).shown("{X-Trunk: carrier-a}"),
	}
}

func headerPattern(target *string) *node {
	want := "the name of a header field that SIP does not need for itself, with a * at the end for all that begin so"
	return leaf(target, want, map[string]any{"type": "string", "minLength": 1, "maxLength": 65}, func(s scalar) (string, *wrong) {
		if s.kind != stringScalar {
			return "", wrongf("%v is no name of a header field", s)
		}
		name, wild := strings.CutSuffix(s.text, "*")
		if wild && (name == "" || headerName.MatchString(name) && !strings.Contains(name, "*")) {
			return s.text, nil
		}
		if w := headerFault(s.text); w != nil {
			return "", w
		}
		return s.text, nil
	})
}

// headerFields are names of header fields with their values.
// Those of single may not be among them.
func headerFields(target *map[string]string, single []string) *node {
	n := mapping(target, headerEditsMax, func(v *string) *node {
		want := fmt.Sprintf("a text of at most %d bytes without control characters", headerEditBytesMax)
		return leaf(v, want, map[string]any{"type": []any{"string", "number", "boolean"}}, func(s scalar) (string, *wrong) {
			if len(s.text) > headerEditBytesMax || strings.ContainsFunc(s.text, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
				return "", wrongf("the value is too long, or has control characters")
			}
			return s.text, nil
		})
	})
	put := n.put
	n.put = func(name string, s scalar) *wrong {
		if w := headerFault(name); w != nil {
			return w
		}
		for _, other := range single {
			if strings.EqualFold(other, name) {
				return wrongf("%q may be in a message once: give it to set", name)
			}
		}
		for other := range *target {
			if longHeader(other) == longHeader(name) && other != name {
				return wrongf("%q is %q again", name, other)
			}
		}
		return put(name, s)
	}
	return n
}

func longHeader(name string) string {
	name = strings.ToLower(name)
	if long, ok := shortHeaders[name]; ok {
		return long
	}
	return name
}

// checkHeaders holds that messages do not grow without measure.
func (d *decoder) checkHeaders(path string, e *HeaderEdit) {
	bytes := 0
	for _, m := range []map[string]string{e.Set, e.Add} {
		for name, v := range m {
			bytes += len(name) + len(v) + len(": \r\n")
		}
	}
	if bytes > headerEditGrowsMax {
		key := ".set"
		if len(e.Set) == 0 {
			key = ".add"
		}
		d.faultAt(path+key, fmt.Sprintf("messages grow by %d bytes", bytes), fmt.Sprintf("at most %d in set and add together", headerEditGrowsMax))
	}
}

// checkPassing holds what the keys of passingFields cannot tell alone.
func (d *decoder) checkPassing(path string, p *Passing) {
	for side, r := range map[string]*HeaderRules{"to_external": &p.ToExternal, "to_internal": &p.ToInternal} {
		d.checkHeaders(path+".headers."+side, &r.Requests)
		d.checkHeaders(path+".headers."+side+".responses", &r.Responses)
	}
	if p.SessionExpires < p.MinSE {
		d.faultAt(path+".session_expires", fmt.Sprintf("%s is less than min_se, %s", short(p.SessionExpires), short(p.MinSE)), "at least that")
	}
	for name, v := range map[string]time.Duration{"session_expires": p.SessionExpires, "min_se": p.MinSE} {
		if v%time.Second != 0 {
			d.faultAt(path+"."+name, fmt.Sprintf("%s is no whole number of seconds", short(v)), "whole seconds")
		}
	}
}
