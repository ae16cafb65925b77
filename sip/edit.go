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
		if len(list) > HeaderEditsMax {
			errs = append(errs, fmt.Errorf("%d header fields, at most %d", len(list), HeaderEditsMax))
		}
		for _, h := range list {
			if err := errors.Join(EditableHeader(h.Name), HeaderValue(h.Value)); err != nil {
				errs = append(errs, fmt.Errorf("header field %q %w", h.Name, err))
			}
		}
	}
	return errors.Join(errs...)
}

// Empty says whether nothing is changed.
func (e *HeaderEdit) Empty() bool {
	return len(e.PassOnly)+len(e.Remove)+len(e.Set)+len(e.Add) == 0
}

// Apply changes m, whose Headers must be its own, and returns how many header
// fields were taken out, set and added.
func (e *HeaderEdit) Apply(m *Message) (changed int) {
	if len(e.PassOnly)+len(e.Remove) > 0 {
		keep := m.Headers[:0]
		for _, h := range m.Headers {
			if e.passes(h.Name) {
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

func (e *HeaderEdit) passes(name string) bool {
	long := longName(name)
	if structural[long] {
		return true
	}
	for _, p := range e.Remove {
		if prefix, wild := strings.CutSuffix(strings.ToLower(p), "*"); wild {
			if strings.HasPrefix(long, prefix) && !meaningful[long] {
				return false
			}
		} else if longName(p) == long {
			return false
		}
	}
	if len(e.PassOnly) == 0 || meaningful[long] {
		return true
	}
	for _, p := range e.PassOnly {
		if prefix, wild := strings.CutSuffix(strings.ToLower(p), "*"); wild && strings.HasPrefix(long, prefix) || longName(p) == long {
			return true
		}
	}
	return false
}
