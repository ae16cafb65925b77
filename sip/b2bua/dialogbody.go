package b2bua

import (
	"bytes"
	"encoding/xml"
	"mime"
	"slices"
	"strings"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/sip"
)

// renamedBody replaces the names of dialogs in a body that is known to hold some:
// the states of dialogs (RFC 4235) and parts of messages (RFC 3420). Every other
// byte stays. What cannot be read passes as it is.
func (b *B2BUA) renamedBody(contentType string, body []byte, from media.Side) []byte {
	return eachPart(contentType, body, func(contentType string, body []byte) []byte {
		switch kind, _, _ := mime.ParseMediaType(contentType); kind {
		case "application/dialog-info+xml":
			return b.renamedStates(body, from)
		case "message/sipfrag", "message/sip":
			return b.renamedFragment(body, from)
		}
		return body
	})
}

// partsDepth is how deep multipart bodies are looked into.
const partsDepth = 3

// eachPart changes a body, or the parts of one of several (RFC 2046 section 5.1): the
// states of a list of dialogs come in these (RFC 4662). Every other byte stays.
func eachPart(contentType string, body []byte, change func(contentType string, body []byte) []byte) []byte {
	return partsOf(contentType, body, change, partsDepth)
}

func partsOf(contentType string, body []byte, change func(string, []byte) []byte, depth int) []byte {
	kind, params, err := mime.ParseMediaType(contentType)
	boundary := params["boundary"]
	if err != nil || !strings.HasPrefix(kind, "multipart/") || boundary == "" || depth == 0 {
		return change(contentType, body)
	}
	delimiter := []byte("--" + boundary)
	out := make([]byte, 0, len(body)+64)
	rest := body
	for {
		i := boundaryIn(rest, delimiter)
		if i < 0 {
			return append(out, rest...) // the last delimiter is missing, or what follows it
		}
		part := rest[:i]
		if len(out) > 0 {
			part = changedPart(part, change, depth)
		}
		out = append(append(out, part...), delimiter...)
		rest = rest[i+len(delimiter):]
	}
}

// boundaryIn returns where the next delimiter stands, alone on its line; -1: nowhere.
func boundaryIn(body, delimiter []byte) int {
	for from := 0; ; {
		i := bytes.Index(body[from:], delimiter)
		if i < 0 {
			return -1
		}
		i += from
		from = i + len(delimiter)
		after := body[from:]
		if (i == 0 || body[i-1] == '\n') && (len(after) == 0 || bytes.HasPrefix(after, []byte("--")) || bytes.IndexByte([]byte("\r\n \t"), after[0]) >= 0) {
			return i
		}
	}
}

// changedPart is a part with its header, from the end of one delimiter to the next.
func changedPart(part []byte, change func(string, []byte) []byte, depth int) []byte {
	at := bytes.Index(part, []byte("\r\n\r\n"))
	if at < 0 {
		return part
	}
	head, body := part[:at+4], part[at+4:]
	text, end := bytes.CutSuffix(body, []byte("\r\n"))
	for line := range strings.SplitSeq(string(head), "\r\n") {
		name, value, _ := strings.Cut(line, ":")
		if !(sip.Header{Name: strings.TrimSpace(name)}).Is("Content-Type") {
			continue
		}
		out := append(slices.Clip(head), partsOf(strings.TrimSpace(value), text, change, depth-1)...)
		if end {
			out = append(out, "\r\n"...)
		}
		return out
	}
	return part
}

// renamedStates reads application/dialog-info+xml.
func (b *B2BUA) renamedStates(body []byte, from media.Side) []byte {
	d := xml.NewDecoder(bytes.NewReader(body))
	d.Strict = true
	out := make([]byte, 0, len(body)+64)
	done := int64(0)
	for {
		begin := d.InputOffset()
		token, err := d.RawToken()
		if err != nil {
			return append(out, body[done:]...)
		}
		el, ok := token.(xml.StartElement)
		if !ok || el.Name.Local != "dialog" && el.Name.Local != "replaces" {
			continue
		}
		end := d.InputOffset()
		if tag, ok := b.renamedElement(el, body[begin:end], from); ok {
			out = append(append(out, body[done:begin]...), tag...)
			done = end
		}
	}
}

// renamedElement returns a start tag with the names of the other leg.
func (b *B2BUA) renamedElement(el xml.StartElement, text []byte, from media.Side) ([]byte, bool) {
	id := ""
	var names []string
	var tags []*string
	for _, a := range el.Attr {
		switch value := a.Value; a.Name.Local {
		case "call-id":
			id = value
		case "local-tag", "remote-tag":
			names, tags = append(names, a.Name.Local), append(tags, &value)
		}
	}
	if id == "" {
		return nil, false
	}
	other, ok := b.renamed(from, id, tags...)
	if !ok {
		return nil, false
	}
	text = setAttribute(text, "call-id", other)
	for i, name := range names {
		text = setAttribute(text, name, *tags[i])
	}
	return text, true
}

// setAttribute gives an attribute of a start tag another value.
func setAttribute(text []byte, name, value string) []byte {
	for at := 0; at < len(text); {
		i := bytes.Index(text[at:], []byte(name))
		if i < 0 {
			break
		}
		i += at
		at = i + len(name)
		rest := bytes.TrimLeft(text[at:], " \t\r\n")
		if len(rest) == 0 || rest[0] != '=' || i == 0 || bytes.IndexByte([]byte(" \t\r\n"), text[i-1]) < 0 {
			continue
		}
		rest = bytes.TrimLeft(rest[1:], " \t\r\n")
		if len(rest) == 0 || rest[0] != '"' && rest[0] != '\'' {
			continue
		}
		from := len(text) - len(rest) + 1
		to := bytes.IndexByte(rest[1:], rest[0])
		if to < 0 {
			break
		}
		var escaped bytes.Buffer
		_ = xml.EscapeText(&escaped, []byte(value)) // a buffer takes everything
		return bytes.Join([][]byte{text[:from], escaped.Bytes(), text[from+to:]}, nil)
	}
	return text
}

// placesOf are the header fields of a fragment that say where a message has been.
var placesOf = []string{"Via", "Record-Route", "Route", "Contact"}

// renamedFragment reads message/sipfrag: what it says of its dialog is renamed.
func (b *B2BUA) renamedFragment(body []byte, from media.Side) []byte {
	lines := strings.SplitAfter(string(body), "\r\n")
	var id *string
	var tags []*string
	var at []int // lines of id and tags
	for i, line := range lines {
		name, value, ok := strings.Cut(strings.TrimRight(line, "\r\n"), ":")
		if line == "\r\n" {
			break
		}
		h := sip.Header{Name: strings.TrimSpace(name), Value: strings.TrimSpace(value)}
		switch {
		case !ok:
		case h.Is("Call-ID"):
			id, at = &h.Value, append(at, i)
		case h.Is("From"), h.Is("To"):
			if a, err := sip.ParseAddress(h.Value); err == nil {
				if tag, found := a.Param("tag"); found {
					tags, at = append(tags, &tag), append(at, i)
				}
			}
		default:
			if v, changed := b.renamedIn(h, from); changed {
				lines[i] = name + ": " + v + "\r\n"
			}
		}
	}
	if id == nil {
		return []byte(strings.Join(lines, ""))
	}
	was := *id
	olds := make([]string, len(tags))
	for i, t := range tags {
		olds[i] = *t
	}
	other, ok := b.renamed(from, was, tags...)
	if !ok {
		return []byte(strings.Join(lines, ""))
	}
	for _, i := range at {
		lines[i] = strings.Replace(lines[i], was, other, 1)
		for k, t := range tags {
			lines[i] = strings.Replace(lines[i], "tag="+olds[k], "tag="+*t, 1)
		}
	}
	return []byte(strings.Join(lines, ""))
}

// withoutPlaces leaves out of a fragment of a message where it has been.
func withoutPlaces(contentType string, body []byte) []byte {
	kind, _, err := mime.ParseMediaType(contentType)
	if err != nil || kind != "message/sipfrag" && kind != "message/sip" {
		return body
	}
	var out strings.Builder
	leaving, header := false, true
	for line := range strings.SplitAfterSeq(string(body), "\r\n") {
		name, _, ok := strings.Cut(line, ":")
		h := sip.Header{Name: strings.TrimSpace(name)}
		switch {
		case !header:
		case line == "\r\n":
			header, leaving = false, false
		case strings.HasPrefix(line, " "), strings.HasPrefix(line, "\t"): // belongs to the line before
		default:
			leaving = ok && is(h, placesOf)
		}
		if !leaving {
			out.WriteString(line)
		}
	}
	return []byte(out.String())
}

// is says whether a header field has one of the names.
func is(h sip.Header, names []string) bool {
	for _, n := range names {
		if h.Is(n) {
			return true
		}
	}
	return false
}
