package sdp

import (
	"bytes"
	"mime"
	"slices"
	"strconv"
	"strings"
)

const (
	multipartBytesMax = 1 << 20 // of a body in which a description is looked for
	boundaryBytesMax  = 70      // RFC 2046 section 5.1.1
	nestingMax        = 4       // multipart bodies in one another
)

// SplitBody finds the session description in the body of a message: the whole
// body of application/sdp, or the first such part of a multipart body (RFC
// 5621). replace returns the body with another description in its place:
// boundary and other parts stay as they were, a Content-Length in the part's
// header is corrected. ok is false when there is none. sdp shares memory with
// body; replace does not change body.
func SplitBody(contentType string, body []byte) (sdp []byte, replace func(newSDP []byte) []byte, ok bool) {
	if len(body) > multipartBytesMax {
		return nil, nil, false
	}
	if strings.EqualFold(contentType, "application/sdp") {
		return body, bytes.Clone, true
	}
	typ, params, err := mime.ParseMediaType(contentType)
	if err != nil && typ == "" {
		return nil, nil, false
	}
	if typ == "application/sdp" {
		return body, bytes.Clone, true
	}
	boundary := params["boundary"]
	if !strings.HasPrefix(typ, "multipart/") || boundary == "" || len(boundary) > boundaryBytesMax {
		return nil, nil, false
	}
	p, ok := findPart(body, part{end: len(body)}, boundary, 0)
	if !ok {
		return nil, nil, false
	}
	return body[p.content:p.end], func(newSDP []byte) []byte { return p.replace(body, newSDP) }, true
}

// part is one part of a multipart body, by offsets.
type part struct {
	header, content, end int
	lengthAt, lengthTo   int // the digits of its Content-Length, equal without one
}

func (p part) replace(body, newSDP []byte) []byte {
	if p.lengthAt == p.lengthTo {
		return slices.Concat(body[:p.content], newSDP, body[p.end:])
	}
	length := []byte(strconv.Itoa(len(newSDP)))
	return slices.Concat(body[:p.lengthAt], length, body[p.lengthTo:p.content], newSDP, body[p.end:])
}

// findPart returns the first part that is a description, of the parts of one part.
// Parts may be multipart themselves (RFC 5621 section 3.3).
func findPart(body []byte, in part, boundary string, depth int) (part, bool) {
	delimiter := []byte("--" + boundary)
	body = body[:in.end]
	at, _, last := nextDelimiter(body, in.content, delimiter)
	for at >= 0 && !last {
		lineEnd := bytes.IndexByte(body[at:], '\n')
		if lineEnd < 0 {
			break
		}
		p := part{header: at + lineEnd + 1}
		next, contentEnd, isLast := nextDelimiter(body, p.header, delimiter)
		p.end = contentEnd
		isSDP, inner := p.readHeader(body)
		if isSDP {
			return p, true
		}
		if inner != "" && depth < nestingMax && p.lengthAt == p.lengthTo {
			if found, ok := findPart(body, p, inner, depth+1); ok {
				return found, true
			}
		}
		at, last = next, isLast
	}
	return part{}, false
}

// nextDelimiter finds the next delimiter line from an offset at the beginning
// of a line on: where it begins, where the content before it ends (the line
// end before it belongs to the delimiter), and whether it is the closing one.
// Without one it returns -1 and the end of the body.
func nextDelimiter(body []byte, from int, delimiter []byte) (at, contentEnd int, last bool) {
	for pos := from; pos < len(body); {
		eol := bytes.IndexByte(body[pos:], '\n')
		next := pos + eol + 1
		if eol < 0 {
			next = len(body)
		}
		if rest, ok := bytes.CutPrefix(body[pos:next], delimiter); ok {
			closing := bytes.HasPrefix(rest, []byte("--"))
			if tail := bytes.TrimRight(bytes.TrimPrefix(rest, []byte("--")), " \t\r\n"); len(tail) == 0 {
				contentEnd = pos
				if contentEnd > from {
					contentEnd--
				}
				if contentEnd > from && body[contentEnd-1] == '\r' {
					contentEnd--
				}
				return pos, contentEnd, closing
			}
		}
		pos = next
	}
	return -1, len(body), false
}

// readHeader finds the content and tells whether it is a description, in clear and
// of this session, or has parts of its own.
func (p *part) readHeader(body []byte) (isSDP bool, boundary string) {
	usable := true
	for pos := p.header; pos < p.end; {
		eol := bytes.IndexByte(body[pos:p.end], '\n')
		if eol < 0 {
			break
		}
		text := strings.TrimRight(string(body[pos:pos+eol]), "\r")
		next := pos + eol + 1
		if text == "" {
			p.content = next
			return isSDP && usable, boundary
		}
		name, value, _ := strings.Cut(text, ":")
		value = strings.TrimSpace(value)
		switch strings.ToLower(strings.TrimSpace(name)) {
		case "content-type", "c":
			typ, _, _ := strings.Cut(value, ";")
			typ = strings.ToLower(strings.TrimSpace(typ))
			isSDP, boundary = typ == "application/sdp", ""
			if strings.HasPrefix(typ, "multipart/") {
				boundary = boundaryOf(value)
			}
		case "content-disposition":
			kind, _, _ := strings.Cut(value, ";")
			usable = usable && strings.EqualFold(strings.TrimSpace(kind), "session")
		case "content-encoding", "e":
			usable = usable && strings.EqualFold(value, "identity")
		case "content-transfer-encoding":
			switch strings.ToLower(value) {
			case "binary", "8bit", "7bit":
			default:
				usable = false
			}
		case "content-length", "l":
			if _, err := strconv.ParseUint(value, 10, 32); err != nil {
				break
			}
			p.lengthAt = pos + strings.LastIndex(text, value)
			p.lengthTo = p.lengthAt + len(value)
		}
		pos = next
	}
	return false, ""
}

func boundaryOf(contentType string) string {
	_, params, err := mime.ParseMediaType(contentType)
	if b := params["boundary"]; err == nil && len(b) <= boundaryBytesMax {
		return b
	}
	return ""
}
