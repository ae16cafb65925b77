package sip

import (
	"errors"
	"fmt"
	"strings"
)

// Limits of what a HeaderEdit holds.
const (
	HeaderEditsMax      = 64   // entries of one of its lists
	HeaderEditBytesMax  = 1024 // of one value
	HeaderEditGrowsMax  = 8192 // bytes by which a message may grow: all of Set and Add
	headerEditNameBytes = 64
)

// HeaderRules say what becomes of header fields on their way to one side.
type HeaderRules struct{ Requests, Responses HeaderEdit }

// HeaderEdit changes the header fields of a message, in the order of its fields.
// Fields that SIP itself depends on are never touched: see EditableHeader.
type HeaderEdit struct {
	PassOnly []string // names that pass, with a * at the end for all that begin so; empty: all
	Remove   []string // likewise, names that do not pass
	Set      []Header // in the place of what came, or added
	Add      []Header
}

// structural are the fields by which messages find their way and are understood:
// they are ours, or the parties'.
var structural = names(`Via Route Record-Route From To Call-ID CSeq Max-Forwards Contact Content-Length Content-Type
	Content-Encoding MIME-Version RAck RSeq Require Proxy-Require Event Subscription-State Refer-To Session-Expires Min-SE`)

// meaningful are those that pass where not everything does: extensions, credentials
// and what goes with a status.
var meaningful = names(`Supported Unsupported Allow Allow-Events Accept Content-Disposition Replaces Join Target-Dialog
	Refer-Sub Expires Min-Expires Authorization Proxy-Authorization WWW-Authenticate Proxy-Authenticate
	Authentication-Info Reason Retry-After SIP-ETag SIP-If-Match`)

// single are those that a message may have once: a second one is read in two ways, or
// makes the next element refuse the message (RFC 3261 section 7.3.1).
var single = names(`User-Agent Server Date Expires Min-Expires Organization Priority Subject Timestamp Retry-After Reply-To
	Content-Disposition Replaces Join Target-Dialog Referred-By Refer-Sub Session-ID P-Charging-Vector SIP-ETag SIP-If-Match
	Answer-Mode Priv-Answer-Mode Content-ID`)

// SingleHeader says whether a message may have a header field but once.
func SingleHeader(name string) bool { return single[longName(name)] }

func names(list string) map[string]bool {
	out := map[string]bool{}
	for _, n := range strings.Fields(list) {
		out[strings.ToLower(n)] = true
	}
	return out
}

func longName(name string) string {
	if len(name) == 1 {
		if long, ok := compact[name[0]|0x20]; ok {
			return long
		}
	}
	return strings.ToLower(name)
}

// EditableHeader says why the header field of that name cannot be changed by a
// HeaderEdit.
func EditableHeader(name string) error {
	switch {
	case len(name) > headerEditNameBytes || !isToken(name):
		return errors.New("is no name of a header field")
	case structural[longName(name)]:
		return errors.New("is needed by SIP itself")
	}
	return nil
}

// HeaderPattern says what is wrong with an entry of PassOnly or Remove.
func HeaderPattern(pattern string) error {
	name, _ := strings.CutSuffix(pattern, "*")
	if strings.Contains(name, "*") {
		return errors.New("has a * that is not at the end")
	}
	if name != pattern && name == "" {
		return nil
	}
	if name != pattern && isToken(name) && len(name) <= headerEditNameBytes {
		return nil // what is structural is left alone
	}
	return EditableHeader(name)
}

// HeaderValue says why a text cannot be the value of a header field.
func HeaderValue(v string) error {
	if len(v) > HeaderEditBytesMax {
		return fmt.Errorf("has more than %d bytes", HeaderEditBytesMax)
	}
	for i := range len(v) {
		if c := v[i]; c < ' ' && c != '\t' || c == 0x7f {
			return errors.New("has a control character")
		}
	}
	return nil
}

// Validate lists what is wrong.
func (e *HeaderEdit) Validate() error {
	var errs []error
	for _, list := range [][]string{e.PassOnly, e.Remove} {
		if len(list) > HeaderEditsMax {
			errs = append(errs, fmt.Errorf("%d names, at most %d", len(list), HeaderEditsMax))
		}
		for _, p := range list {
			if err := HeaderPattern(p); err != nil {
				errs = append(errs, fmt.Errorf("header field %q %w", p, err))
			}
		}
	}
	for _, list := range [][]Header{e.Set, e.Add} {
		errs = append(errs, validHeaders(list))
	}
	for _, h := range e.Add {
		if SingleHeader(h.Name) {
			errs = append(errs, fmt.Errorf("header field %q may be there once: set it", h.Name))
		}
	}
	if n := e.grows(); n > HeaderEditGrowsMax {
		errs = append(errs, fmt.Errorf("%d bytes of header fields, at most %d", n, HeaderEditGrowsMax))
	}
	return errors.Join(errs...)
}

func validHeaders(list []Header) error {
	var errs []error
	if len(list) > HeaderEditsMax {
		errs = append(errs, fmt.Errorf("%d header fields, at most %d", len(list), HeaderEditsMax))
	}
	had := map[string]string{}
	for _, h := range list {
		if err := errors.Join(EditableHeader(h.Name), HeaderValue(h.Value)); err != nil {
			errs = append(errs, fmt.Errorf("header field %q %w", h.Name, err))
		}
		long := longName(h.Name)
		if before, ok := had[long]; ok {
			errs = append(errs, fmt.Errorf("header field %q is %q again", h.Name, before))
		}
		had[long] = h.Name
	}
	return errors.Join(errs...)
}

// grows is by how much a message becomes longer at most.
func (e *HeaderEdit) grows() (bytes int) {
	for _, list := range [][]Header{e.Set, e.Add} {
		for _, h := range list {
			bytes += len(h.Name) + len(h.Value) + len(": \r\n")
		}
	}
	return bytes
}

// Empty says whether nothing is changed.
func (e *HeaderEdit) Empty() bool {
	return len(e.PassOnly)+len(e.Remove)+len(e.Set)+len(e.Add) == 0
}

// Apply changes m, whose Headers must be its own, and returns how many header
// fields were taken out, set and added.
func (e *HeaderEdit) Apply(m *Message) (changed int) {
	if len(e.PassOnly)+len(e.Remove) > 0 {
		only, remove := patterns(e.PassOnly), patterns(e.Remove)
		keep := m.Headers[:0]
		for _, h := range m.Headers {
			if passes(longName(h.Name), only, remove) {
				keep = append(keep, h)
			} else {
				changed++
			}
		}
		clear(m.Headers[len(keep):])
		m.Headers = keep
	}
	for _, h := range e.Set {
		m.Set(h.Name, h.Value)
		changed++
	}
	m.Headers = append(m.Headers, e.Add...)
	return changed + len(e.Add)
}

// pattern is an entry of PassOnly or Remove, made ready once for a message that may
// have thousands of fields.
type pattern struct {
	name string // in full, in lower case
	wild bool   // all that begin so
}

func patterns(list []string) []pattern {
	out := make([]pattern, len(list))
	for i, p := range list {
		if prefix, wild := strings.CutSuffix(p, "*"); wild {
			out[i] = pattern{strings.ToLower(prefix), true}
		} else {
			out[i].name = longName(p)
		}
	}
	return out
}

func (p pattern) matches(long string) bool {
	return p.name == long || p.wild && strings.HasPrefix(long, p.name)
}

// passes says whether the field of that long name does.
func passes(long string, only, remove []pattern) bool {
	if structural[long] {
		return true
	}
	for _, p := range remove {
		if p.matches(long) && !(p.wild && meaningful[long]) {
			return false
		}
	}
	if len(only) == 0 || meaningful[long] {
		return true
	}
	for _, p := range only {
		if p.matches(long) {
			return true
		}
	}
	return false
}
