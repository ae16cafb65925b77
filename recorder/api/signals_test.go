package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/suppress"
)

func TestSignal(t *testing.T) {
	f := mustServe(t, nil)
	before := time.Now()
	body, _ := f.mustDo(t, "POST", "/v1/calls/c1/signals", `{"event":"hold.start","party":"alice"}`, 200)
	var a recorder.Applied
	if err := json.Unmarshal([]byte(body), &a); err != nil || len(a.Reasons) != 1 || a.Reasons[0] != "hold" {
		t.Errorf("%s: %v", body, err)
	}
	got := f.rt.got[0]
	if got.Event != suppress.HoldStart || got.Call != "c1" || got.Source != "http" || got.V != 1 || got.Party != "alice" ||
		got.At.Before(before) || !got.Received.Equal(got.At) {
		t.Errorf("signal %+v", got)
	}
	at := before.Add(-time.Hour).UTC()
	body, _ = f.mustDo(t, "POST", "/v1/calls/c1/signals", `{"v":1,"event":"hold.end","at":"`+at.Format(time.RFC3339Nano)+`","seq":7,"source":"cti","call":"c1"}`, 200)
	if !strings.Contains(body, `"reasons":[]`) || strings.Contains(body, "$schema") {
		t.Error(body)
	}
	if got := f.rt.got[1]; !got.At.Equal(at) || got.Seq != 7 || got.Source != "cti" {
		t.Errorf("signal %+v", got)
	}
}

// A pause that is to come is begun: the clock of the client is fast. Its end waits.
func TestSignalToCome(t *testing.T) {
	f := mustServe(t, nil)
	ahead := time.Now().Add(time.Hour).UTC()
	for _, event := range []string{"pause.start", "pause.end"} {
		f.mustDo(t, "POST", "/v1/calls/c1/signals", fmt.Sprintf(`{"event":%q,"at":%q}`, event, ahead.Format(time.RFC3339Nano)), 200)
	}
	if s := f.rt.got[0]; !s.At.Equal(s.Received) {
		t.Errorf("the pause begins %v after the signal came", s.At.Sub(s.Received))
	}
	if s := f.rt.got[1]; !s.At.Equal(ahead) {
		t.Errorf("the pause ends at %v, want %v", s.At, ahead)
	}
}

func TestSignalBySIPCallID(t *testing.T) {
	f := mustServe(t, nil)
	f.mustDo(t, "POST", "/v1/calls/by-sip-call-id/a%2Fb%20c@example/signals", `{"event":"pause.start"}`, 200)
	if got := f.rt.got[0]; got.SIPCall != "a/b c@example" || got.Call != "" {
		t.Errorf("signal %+v", got)
	}
	f.mustDo(t, "POST", "/v1/calls/by-sip-call-id/c1/signals", `{"event":"pause.start"}`, 404)
}

func TestSignalFaults(t *testing.T) {
	f := mustServe(t, nil)
	for _, c := range []struct{ body, location string }{
		{`{}`, "body.event"},
		{`{"event":"pause"}`, "body.event"},
		{`{"event":7}`, "body.event"},
		{`{"event":"pause.start","v":2}`, "body.v"},
		{`{"event":"pause.start","at":"yesterday"}`, "body"},
		{`{"event":"pause.start","at":"2020-01-01T00:00:00Z"}`, "body.at"},
		{`{"event":"pause.start","at":"2220-01-01T00:00:00Z"}`, "body.at"},
		{`{"event":"pause.start","received":"2026-01-01T00:00:00Z"}`, "body.received"},
		{`{"event":"pause.start","call":"other"}`, "body.call"},
		{`{"event":"pause.start","sip_call_id":"other"}`, "body.sip_call_id"},
		{`{"event":"pause.start","card":"4111111111111111"}`, "body"},
		{`{"event":"pause.start"} {"event":"pause.end"}`, "body"},
		{`{"event":"agent.join","role":"boss"}`, "body.role"},
		{`{"event":"snippet.start"}`, "body.user"},
		{`{"event":"adhoc.end"}`, "body.user"},
		{`{"event":"source.lost"}`, "body.event"},
		{`{"event":"pause.start","user":"` + strings.Repeat("u", 300) + `"}`, "body.user"},
		{`[]`, "body"},
		{`null x`, "body"},
		{`{`, "body"},
		{"4111111111111111", "body"},
	} {
		body, _ := f.mustDo(t, "POST", "/v1/calls/c1/signals", c.body, 422)
		var p Problem
		if err := json.Unmarshal([]byte(body), &p); err != nil || len(p.Errors) != 1 || p.Errors[0].Location != c.location || p.Code != "invalid" {
			t.Errorf("%s: %s", c.body, body)
		}
		if strings.Contains(body, "4111") {
			t.Errorf("the answer repeats the body: %s", body)
		}
	}
	if len(f.rt.got) != 0 {
		t.Errorf("taken: %+v", f.rt.got)
	}
	f.mustDo(t, "POST", "/v1/calls/c1/signals", "", 400)
	f.mustDo(t, "POST", "/v1/calls/unknown/signals", `{"event":"pause.start"}`, 404)
}

func TestSignalErrors(t *testing.T) {
	f := mustServe(t, nil)
	for _, c := range []struct {
		err    error
		status int
		code   string
	}{
		{recorder.ErrEnded, 404, "ended"},
		{context.DeadlineExceeded, 504, "effect-unknown"},
		{fmt.Errorf("call c1: %w", &recorder.RefusedError{Why: "the user is not on the call"}), 409, "refused"},
		{errors.New("disk /dev/sda1 is full"), 500, "internal"},
	} {
		f.rt.err = c.err
		body, _ := f.mustDo(t, "POST", "/v1/calls/c1/signals", `{"event":"pause.start"}`, c.status)
		if !strings.Contains(body, `"code":"`+c.code+`"`) || strings.Contains(body, "sda1") {
			t.Errorf("%v: %s", c.err, body)
		}
		if c.status == 409 && !strings.Contains(body, `"detail":"the user is not on the call"`) {
			t.Errorf("the reason is not told: %s", body)
		}
	}
}

func TestSignalsSwitchedOff(t *testing.T) {
	f := mustServe(t, func(c *Config) { c.NoSignals = true })
	f.mustDo(t, "POST", "/v1/calls/c1/signals", `{"event":"pause.start"}`, 403)
}

func TestCalls(t *testing.T) {
	f := mustServe(t, nil)
	body, _ := f.mustDo(t, "GET", "/v1/calls", "", 200)
	if !strings.HasPrefix(body, `{"calls":[{"id":"c1",`) || strings.Contains(body, "null") || !strings.Contains(body, `"reasons":[],"recordings":[{"id":"c1","kind":"trunk","reasons":[]},{"id":"c1-st1","kind":"station","user":"alice","reasons":["hold"]}]`) {
		t.Error(body)
	}
}

func FuzzSignal(f *testing.F) {
	for _, s := range []string{
		`{"event":"pause.start"}`, `{"event":"attrs.set","attrs":{"a":"b"}}`, `{"event":"hold.end","at":"2026-11-22T16:00:00Z","seq":18446744073709551615}`,
		`{"v":-1}`, `[`, `"x"`, `{"event":"pause.start","at":0}`, `{"event":"pause.start","at":"9999-12-31T23:59:59.999999999Z"}`, "\xff", `{"EVENT":"pause.start"}`,
	} {
		f.Add(s)
	}
	rt := newFakeRuntime()
	s := New(Config{Runtime: rt, Library: &fakeLibrary{}, Token: token})
	f.Fuzz(func(t *testing.T, body string) {
		rt.got = nil
		req := httptest.NewRequest("POST", "/v1/calls/c1/signals", strings.NewReader(body))
		req.Header.Set("Authorization", "Bearer "+token)
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, req)
		switch w.Code {
		case http.StatusOK:
			if len(rt.got) != 1 || rt.got[0].Validate() != nil || rt.got[0].Call != "c1" || rt.got[0].Received.IsZero() {
				t.Errorf("passed on: %+v", rt.got)
			}
		case http.StatusUnprocessableEntity, http.StatusBadRequest, http.StatusRequestEntityTooLarge:
			if len(rt.got) != 0 || !json.Valid(w.Body.Bytes()) {
				t.Errorf("refused with %s, passed on %+v", w.Body, rt.got)
			}
		default:
			t.Errorf("status %d: %s", w.Code, w.Body)
		}
	})
}
