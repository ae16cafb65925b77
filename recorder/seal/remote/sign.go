package remote

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Requests and responses are signed by HTTP Message Signatures (RFC 9421) with
// Ed25519, in one profile: these components, in this order. A response covers the
// signature of its request, so no answer fits another question.
const (
	label              = "trunktap"
	tag                = "trunktap-keys-1"
	algorithm          = "ed25519"
	requestComponents  = `("@method" "@authority" "@path" "content-digest")`
	responseComponents = `("@status" "content-digest" "signature";req;key="trunktap")`

	headerDigest    = "Content-Digest"
	headerInput     = "Signature-Input"
	headerSignature = "Signature"

	inputBytesMax = 1024
	valueBytesMax = 128
	nonceBytes    = 18
)

// Params are the parameters of a signature.
type Params struct {
	Created time.Time
	KeyID   string
	Nonce   string

	raw string // as they are signed
}

func newParams(components, keyID, nonce string, now time.Time) Params {
	p := Params{Created: time.Unix(now.Unix(), 0), KeyID: keyID, Nonce: nonce}
	p.raw = components + ";created=" + strconv.FormatInt(now.Unix(), 10) + ";keyid=" + strconv.Quote(keyID)
	if nonce != "" {
		p.raw += ";nonce=" + strconv.Quote(nonce)
	}
	p.raw += `;alg="` + algorithm + `";tag="` + tag + `"`
	return p
}

// parseParams reads a Signature-Input field of this profile; parameters may come
// in any order.
func parseParams(field, components string) (Params, error) {
	raw, ok := strings.CutPrefix(field, label+"=")
	if !ok || len(field) > inputBytesMax {
		return Params{}, fmt.Errorf("%s: want one signature, called %s", headerInput, label)
	}
	rest, ok := strings.CutPrefix(raw, components)
	if !ok {
		return Params{}, fmt.Errorf("%s: the components must be %s", headerInput, components)
	}
	p := Params{raw: raw}
	seen := map[string]string{}
	for rest != "" {
		var name, value string
		var err error
		if name, value, rest, err = parseParam(rest); err != nil {
			return Params{}, err
		}
		if _, twice := seen[name]; twice {
			return Params{}, fmt.Errorf("%s: %s is there twice", headerInput, name)
		}
		seen[name] = value
	}
	err := p.take(seen)
	return p, err
}

// parseParam reads `;name=value` of a string without escapes or an integer.
func parseParam(s string) (name, value, rest string, err error) {
	s, ok := strings.CutPrefix(s, ";")
	name, s, found := strings.Cut(s, "=")
	if !ok || !found {
		return "", "", "", fmt.Errorf("%s: want ;name=value", headerInput)
	}
	if name == "created" {
		n := len(s) - len(strings.TrimLeft(s, "0123456789"))
		return name, s[:n], s[n:], nil
	}
	s, ok = strings.CutPrefix(s, `"`)
	value, rest, found = strings.Cut(s, `"`)
	if !ok || !found || len(value) > valueBytesMax || strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r > '~' || r == '\\' }) {
		return "", "", "", fmt.Errorf("%s: %.20q must be a string of at most %d characters without escapes", headerInput, name, valueBytesMax)
	}
	return name, value, rest, nil
}

func (p *Params) take(seen map[string]string) error {
	for name, value := range seen {
		switch name {
		case "created":
			n, err := strconv.ParseInt(value, 10, 63)
			if err != nil || len(value) > 12 {
				return fmt.Errorf("%s: created must be seconds since 1970", headerInput)
			}
			p.Created = time.Unix(n, 0)
		case "keyid":
			p.KeyID = value
		case "nonce":
			p.Nonce = value
		case "alg":
		case "tag":
		default:
			return fmt.Errorf("%s: %.20q is no parameter of this protocol", headerInput, name)
		}
	}
	if p.Created.IsZero() || p.KeyID == "" || seen["alg"] != algorithm || seen["tag"] != tag {
		return fmt.Errorf(`%s: created, keyid, alg=%q and tag=%q must be there`, headerInput, algorithm, tag)
	}
	return nil
}

// parseSignature reads a Signature field.
func parseSignature(field string) ([]byte, error) {
	s, ok := strings.CutPrefix(field, label+"=:")
	s, end := strings.CutSuffix(s, ":")
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	if !ok || !end || err != nil || len(b) != ed25519.SignatureSize {
		return nil, fmt.Errorf("%s: want %s=:, %d bytes in Base64, and a colon", headerSignature, label, ed25519.SignatureSize)
	}
	return b, nil
}

func formatSignature(sig []byte) string {
	return label + "=:" + base64.StdEncoding.EncodeToString(sig) + ":"
}

// digest is the Content-Digest (RFC 9530) of a body.
func digest(body []byte) string {
	h := sha256.Sum256(body)
	return "sha-256=:" + base64.StdEncoding.EncodeToString(h[:]) + ":"
}

// authority is the component @authority: RFC 9421, section 2.2.3.
func authority(host string) string { return strings.TrimSuffix(strings.ToLower(host), ":443") }

func requestBase(method, host, path, digest, params string) []byte {
	return []byte(`"@method": ` + method + "\n" + `"@authority": ` + authority(host) + "\n" + `"@path": ` + path + "\n" +
		`"content-digest": ` + digest + "\n" + `"@signature-params": ` + params)
}

func responseBase(status int, digest string, request []byte, params string) []byte {
	return []byte(`"@status": ` + strconv.Itoa(status) + "\n" + `"content-digest": ` + digest + "\n" +
		`"signature";req;key="` + label + `": :` + base64.StdEncoding.EncodeToString(request) + ":\n" + `"@signature-params": ` + params)
}

// SignRequest adds the three header fields to a request with that body and
// returns the signature.
func SignRequest(r *http.Request, body []byte, keyID string, key ed25519.PrivateKey, now time.Time) []byte {
	nonce := make([]byte, nonceBytes)
	_, _ = rand.Read(nonce) // never fails
	p := newParams(requestComponents, keyID, base64.RawURLEncoding.EncodeToString(nonce), now)
	d := digest(body)
	host := r.Host
	if host == "" {
		host = r.URL.Host
	}
	sig := ed25519.Sign(key, requestBase(r.Method, host, r.URL.EscapedPath(), d, p.raw))
	r.Header.Set(headerDigest, d)
	r.Header.Set(headerInput, label+"="+p.raw)
	r.Header.Set(headerSignature, formatSignature(sig))
	return sig
}

// Signed is a request with a signature that is yet to be verified.
type Signed struct {
	Params
	Signature []byte

	base []byte
}

// ReadRequest takes the signature from a request with that body. An error says
// what is malformed.
func ReadRequest(r *http.Request, body []byte) (*Signed, error) {
	for _, h := range []string{headerDigest, headerInput, headerSignature} {
		if len(r.Header.Values(h)) != 1 {
			return nil, fmt.Errorf("%s: must be there once", h)
		}
	}
	sig, err := parseSignature(r.Header.Get(headerSignature))
	if err != nil {
		return nil, err
	}
	p, err := parseParams(r.Header.Get(headerInput), requestComponents)
	if err != nil {
		return nil, err
	}
	d := r.Header.Get(headerDigest)
	if d != digest(body) {
		return nil, fmt.Errorf("%s: is not the sha-256 of the body", headerDigest)
	}
	if len(p.Nonce) < 16 {
		return nil, fmt.Errorf("%s: nonce must have 16 characters or more", headerInput)
	}
	return &Signed{p, sig, requestBase(r.Method, r.Host, r.URL.EscapedPath(), d, p.raw)}, nil
}

// By tells whether key made the signature.
func (s *Signed) By(key ed25519.PublicKey) bool { return ed25519.Verify(key, s.base, s.Signature) }

// SignResponse adds the three header fields to a response, bound to the
// signature of its request.
func SignResponse(h http.Header, status int, body, request []byte, keyID string, key ed25519.PrivateKey, now time.Time) {
	p := newParams(responseComponents, keyID, "", now)
	d := digest(body)
	h.Set(headerDigest, d)
	h.Set(headerInput, label+"="+p.raw)
	h.Set(headerSignature, formatSignature(ed25519.Sign(key, responseBase(status, d, request, p.raw))))
}

// verifyResponse checks that one of the keys signed the answer to the request with
// that signature.
func verifyResponse(h http.Header, status int, body, request []byte, keys []ed25519.PublicKey) error {
	sig, err := parseSignature(h.Get(headerSignature))
	if err != nil {
		return err
	}
	p, err := parseParams(h.Get(headerInput), responseComponents)
	if err != nil {
		return err
	}
	d := digest(body)
	if h.Get(headerDigest) != d {
		return fmt.Errorf("%s: is not the sha-256 of the body", headerDigest)
	}
	base := responseBase(status, d, request, p.raw)
	for _, k := range keys {
		if ed25519.Verify(k, base, sig) {
			return nil
		}
	}
	return fmt.Errorf("%s: not by the key manager's key, or the answer to another request", headerSignature)
}
