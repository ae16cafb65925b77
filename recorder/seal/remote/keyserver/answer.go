package keyserver

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/seal"
	"github.com/trunktap/trunktap/recorder/seal/remote"
	"github.com/trunktap/trunktap/recorder/seal/service"
)

// outcomeOK is the outcome of what succeeded.
const outcomeOK = "ok"

// operation is one path of the protocol.
type operation struct {
	name string
	may  string // "": every client
	run  func(ctx context.Context, st *state, c *client, body []byte, l *Line) (any, error)
}

var operations = map[string]operation{
	remote.PathWrap:   {"wrap", mayWrap, wrap},
	remote.PathUnwrap: {"unwrap", mayUnwrap, unwrap},
	remote.PathRotate: {"rotate", mayRotate, rotate},
	remote.PathStatus: {"status", "", status},
}

// ServeHTTP implements http.Handler. Every request leaves a line in the audit log
// and gets a signed answer, which goes out only when the line is written.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	default:
		http.Error(w, "busy", http.StatusServiceUnavailable) // before any work: not signed
		return
	}
	st := s.state.Load()
	from, _, _ := net.SplitHostPort(r.RemoteAddr) // "" when it cannot be told
	l := Line{Time: s.now().UTC(), From: from, Op: "none", Outcome: outcomeOK}
	out, signature, err := s.handle(r, st, &l)
	code, body := http.StatusOK, []byte(nil)
	if err == nil {
		body, err = json.Marshal(out)
		if u, ok := out.(remote.UnwrapResponse); ok {
			clear(u.Plaintext)
		}
	}
	if err != nil {
		e := asError(err)
		if e.Code == remote.CodeUnavailable {
			s.log.Warn("a request failed", "op", l.Op, "client", l.Client, "err", err)
		}
		code, body, l.Outcome = e.Status(), remote.EncodeError(e), e.Code
	}
	if err := s.audit.write(l); err != nil {
		s.log.Error("the audit log cannot be written: nothing is answered", "err", err)
		e := remote.Errorf(remote.CodeUnavailable, "the audit log cannot be written")
		code, body = e.Status(), remote.EncodeError(e)
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	remote.SignResponse(h, code, body, signature, st.cfg.Name, st.signing, s.now())
	w.WriteHeader(code)
	_, _ = w.Write(body) // who asked is gone
	clear(body)
}

// handle checks who asks and does it. It returns the signature of the request, to
// bind the answer to.
func (s *Server) handle(r *http.Request, st *state, l *Line) (out any, signature []byte, err error) {
	op, ok := operations[r.URL.Path]
	if !ok || r.Method != http.MethodPost || r.URL.RawQuery != "" {
		return nil, nil, remote.Errorf(remote.CodeNotFound, "POST to /v1/wrap, /v1/unwrap, /v1/rotate or /v1/status")
	}
	l.Op = op.name
	body, err := io.ReadAll(io.LimitReader(r.Body, remote.BodyBytesMax+1))
	if err != nil {
		return nil, nil, remote.Errorf(remote.CodeBadRequest, "the body breaks off")
	}
	defer clear(body)
	if len(body) > remote.BodyBytesMax {
		return nil, nil, remote.Errorf(remote.CodeTooLarge, "the body has more than %d bytes", remote.BodyBytesMax)
	}
	signed, err := remote.ReadRequest(r, body)
	if err != nil {
		return nil, nil, remote.Errorf(remote.CodeBadRequest, "%v", err)
	}
	l.Client, l.Nonce = signed.KeyID, signed.Nonce
	c, err := s.admit(st, signed)
	if err != nil {
		return nil, signed.Signature, err
	}
	if op.may != "" && !slices.Contains(c.May, op.may) {
		return nil, signed.Signature, remote.Errorf(remote.CodeForbidden, "client %s may not %s", c.Name, op.may)
	}
	ctx, cancel := context.WithTimeout(r.Context(), keysTimeout)
	defer cancel()
	out, err = op.run(ctx, st, c, body, l)
	return out, signed.Signature, err
}

// admit tells which client signed the request, if it is new and not too much.
func (s *Server) admit(st *state, signed *remote.Signed) (*client, error) {
	c := st.clients[signed.KeyID]
	if c == nil || c.Disabled || !slices.ContainsFunc(c.keys, signed.By) {
		return nil, remote.Errorf(remote.CodeUnauthenticated, "unknown or disabled client, or not its signature")
	}
	now := s.now()
	if d := now.Sub(signed.Created); d > st.cfg.Window || d < -st.cfg.Window {
		return nil, remote.Errorf(remote.CodeClock, "made at %d, it is %d here: set the clocks", signed.Created.Unix(), now.Unix())
	}
	switch s.nonces.note(c.Name+" "+signed.Nonce, now, st.cfg.Window) {
	case replayed:
		return nil, remote.Errorf(remote.CodeReplay, "this request was made before")
	case full:
		return nil, remote.Errorf(remote.CodeRate, "too many requests")
	case fresh:
	}
	if !c.limit.AllowN(now, 1) {
		return nil, remote.Errorf(remote.CodeRate, "too many requests of client %s", c.Name)
	}
	return c, nil
}

// asError says what an error is to a client, without what it must not know.
func asError(err error) *remote.Error {
	var e *remote.Error
	switch {
	case errors.As(err, &e):
		return e
	case errors.Is(err, seal.ErrUnreachable):
		return remote.Errorf(remote.CodeUnavailable, "the keys are not at hand")
	case errors.Is(err, seal.ErrRevoked):
		return remote.Errorf(remote.CodeRevoked, "the key is disabled, destroyed or not permitted")
	case errors.Is(err, recorder.ErrKey):
		return remote.Errorf(remote.CodeUnknownKey, "there is no such key")
	case errors.Is(err, recorder.ErrTampered):
		return remote.Errorf(remote.CodeTampered, "the wrapped key or what it is bound to was altered")
	}
	return remote.Errorf(remote.CodeUnavailable, "the key server has a fault; see its log")
}

func wrap(ctx context.Context, st *state, _ *client, body []byte, l *Line) (any, error) {
	var in remote.WrapRequest
	if err := remote.DecodeRequest(body, &in); err != nil {
		return nil, err
	}
	defer clear(in.Plaintext)
	if err := service.CheckWrap(in.Plaintext, in.AAD); err != nil {
		return nil, remote.Errorf(remote.CodeBadRequest, "%v", err)
	}
	l.purpose(in.AAD)
	name, wrapped, err := st.keys.Wrap(ctx, in.Plaintext, in.AAD)
	if err != nil {
		return nil, err
	}
	if l.Key = name; st.revoked[name] {
		return nil, remote.Errorf(remote.CodeRevoked, "the active key %s is revoked: rotate", name)
	}
	return remote.WrapResponse{Key: name, Wrapped: wrapped}, nil
}

func unwrap(ctx context.Context, st *state, _ *client, body []byte, l *Line) (any, error) {
	var in remote.UnwrapRequest
	if err := remote.DecodeRequest(body, &in); err != nil {
		return nil, err
	}
	if len(in.Key) <= service.NameBytesMax {
		l.Key = in.Key
	}
	l.purpose(in.AAD)
	if err := service.CheckUnwrap(in.Key, in.Wrapped, in.AAD); err != nil {
		return nil, err
	}
	if st.revoked[in.Key] {
		return nil, remote.Errorf(remote.CodeRevoked, "key %s is revoked", in.Key)
	}
	b, err := st.keys.Unwrap(ctx, in.Key, in.Wrapped, in.AAD)
	if err != nil {
		return nil, err
	}
	return remote.UnwrapResponse{Plaintext: b}, nil
}

func rotate(ctx context.Context, st *state, _ *client, body []byte, l *Line) (any, error) {
	if err := remote.DecodeRequest(body, &struct{}{}); err != nil {
		return nil, err
	}
	r, ok := st.keys.(seal.Rotator)
	if !ok {
		return nil, remote.Errorf(remote.CodeForbidden, "these keys cannot be rotated from here")
	}
	name, err := r.Rotate(ctx)
	if err != nil {
		return nil, err
	}
	l.Key = name
	return remote.RotateResponse{Key: name}, nil
}

func status(_ context.Context, _ *state, c *client, body []byte, _ *Line) (any, error) {
	if err := remote.DecodeRequest(body, &struct{}{}); err != nil {
		return nil, err
	}
	return remote.StatusResponse{Client: c.Name, May: c.May}, nil
}
