package callstate

import (
	"encoding/hex"
	"net/url"
	"strings"
)

const pairsMax = 64 // key=value pairs, or parameters, of one header field that are looked at

// pair is one key=value of User-to-User data.
type pair struct{ key, value string }

// userData returns the texts of User-to-User header fields (RFC 7433 section
// 4.1): each element decoded, without its parameters encoding, purpose and content.
func userData(fields []string) (texts []string) {
	for _, f := range fields[:min(len(fields), fieldsPerMessageMax)] {
		for f != "" && len(texts) < fieldsPerMessageMax {
			var one string
			one, f, _ = cutText(f, ",")
			if text := element(one); text != "" {
				texts = append(texts, text)
			}
		}
	}
	return texts
}

// element returns the text of one element. Senders that write their pairs
// without quotes make parameters of them; those are part of the text then.
func element(s string) string {
	if len(s) > valueBytesMax*2 {
		return ""
	}
	data, params, _ := cutText(s, ";")
	data = unquote(data)
	if strings.EqualFold(paramOf(s, "encoding"), "hex") {
		b, err := hex.DecodeString(data)
		if err != nil {
			return ""
		}
		return trimControl(string(b))
	}
	if strings.IndexByte(data, '=') < 0 { // a token has no "=": it stands escaped, or as digits
		data = decoded(data)
	}
	for n := 0; params != "" && n < pairsMax; n++ {
		var one string
		one, params, _ = cutText(params, ";")
		switch key, _, _ := strings.Cut(one, "="); strings.ToLower(strings.TrimSpace(key)) {
		case "", "encoding", "purpose", "content":
		default:
			data += ";" + strings.TrimSpace(one)
		}
	}
	return data
}

// decoded undoes an encoding that no parameter tells of. Digits are taken for
// hex only when pairs come out: a number is a value like any other.
func decoded(s string) string {
	if b, err := hex.DecodeString(s); err == nil {
		if text := trimControl(string(b)); strings.IndexByte(text, '=') > 0 && printable(text, valueBytesMax) {
			return text
		}
	}
	if text, err := url.PathUnescape(s); err == nil {
		return trimControl(text)
	}
	return s
}

// trimControl takes away the protocol discriminator of ISDN (ITU-T Q.931
// section 4.5.30) and padding.
func trimControl(s string) string {
	return strings.TrimFunc(s, func(r rune) bool { return r < ' ' })
}

// pairsOf takes a text apart.
func pairsOf(text string) (pairs []pair) {
	for text != "" && len(pairs) < pairsMax {
		var one string
		one, text, _ = cutText(text, ";&,")
		if key, value, ok := strings.Cut(one, "="); ok {
			pairs = append(pairs, pair{strings.TrimSpace(key), unquote(value)})
		}
	}
	return pairs
}

// valueOf returns the value of the first pair with that key.
func valueOf(pairs []pair, key string) string {
	for _, p := range pairs {
		if strings.EqualFold(p.key, key) {
			return p.value
		}
	}
	return ""
}
