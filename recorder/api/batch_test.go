package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/suppress"
)

func (f *fixture) mustBatch(t *testing.T, body string) []Result {
	t.Helper()
	text, _ := f.mustDo(t, "POST", "/v1/signals", body, 200)
	var got struct{ Results []Result }
	if err := json.Unmarshal([]byte(text), &got); err != nil || got.Results == nil || strings.Contains(text, "null") {
		t.Fatalf("%s: %v", text, err)
	}
	return got.Results
}

// TestBatch: each signal has its own answer, in the order of the list, and those
// that are good are applied whatever stands beside them.
func TestBatch(t *testing.T) {
	list := `[{"event":"hold.start","call":"c1"}, {"event":"hold"}, {"event":"pause.start","call":"c9"}, 7,
		{"event":"adhoc.start","call":"c1"}, {"event":"pause.start"}, {"event":"pause.start","sip_call_id":"a/b c@example","call":"c1"},
		{"event":"pause.start","call":"c1","card":"4111111111111111"}, {"event":"pause.start","sip_call_id":"a/b c@example","seq":4,"source":"cti"}]`
	for _, body := range []string{list, " \n" + list + "\n", `{"signals":` + list + `}`} {
		f := mustServe(t, nil)
		before := time.Now()
		got := f.mustBatch(t, body)
		var told []string
		for _, r := range got {
			line := fmt.Sprint(r.Status)
			if r.Applied != nil {
				line += fmt.Sprint(" ", r.Applied.Reasons)
			}
			if r.Problem != nil {
				line += " " + r.Problem.Code
				if len(r.Problem.Errors) > 0 {
					line += " " + r.Problem.Errors[0].Location
				}
				if r.Problem.Status != r.Status || (r.Applied != nil) {
					t.Errorf("%+v", r)
				}
			}
			told = append(told, line)
		}
		want := []string{
			"200 [hold]", "422 invalid body.call", "404 not-found", "422 invalid body", "422 invalid body.user", "422 invalid body.call",
			"422 invalid body.sip_call_id", "422 invalid body", "200 []",
		}
		if d := cmp.Diff(want, told); d != "" {
			t.Error(d)
		}
		if len(f.rt.got) != 2 || f.rt.got[0].Event != suppress.HoldStart || f.rt.got[1].SIPCall != "a/b c@example" || f.rt.got[1].Source != "cti" {
			t.Fatalf("applied %+v", f.rt.got)
		}
		if s := f.rt.got[0]; s.Source != "http" || s.V != 1 || s.At.Before(before) || s.Received.IsZero() {
			t.Errorf("signal %+v", s)
		}
	}
}

func TestBatchRefused(t *testing.T) {
	f := mustServe(t, nil)
	f.rt.err = &recorder.RefusedError{Why: "the user is not on the call"}
	got := f.mustBatch(t, `[{"event":"adhoc.start","user":"alice","call":"c1"}]`)
	if len(got) != 1 || got[0].Status != 409 || got[0].Problem.Code != "refused" || got[0].Problem.Detail != "the user is not on the call" {
		t.Errorf("%+v", got)
	}
	f.rt.err = errors.New("disk /dev/sda1 is full")
	if got = f.mustBatch(t, `[{"event":"pause.start","call":"c1"}]`); got[0].Status != 500 || strings.Contains(got[0].Problem.Detail, "sda1") {
		t.Errorf("%+v", got[0])
	}
}

// TestNoBatch: what is no list of signals is refused whole, nothing of it is applied.
func TestNoBatch(t *testing.T) {
	f := mustServe(t, nil)
	one := `{"event":"pause.start","call":"c1"}`
	for body, location := range map[string]string{
		one: "body", `{}`: "body.signals", `{"signals":null}`: "body", `{"signals":{}}`: "body", `{"signals":[],"more":1}`: "body",
		`"x"`: "body", `7`: "body", `null`: "body", `[` + one: "body", `[` + one + `,]`: "body", `[` + one + `] []`: "body",
		`{"signals":[` + one + `]} x`: "body", `{"signals":[` + one: "body", `[` + one + one + `]`: "body", "[\xff]": "body",
		`[` + strings.Repeat(one+",", batchSignalsMax) + one + `]`: "body",
	} {
		text, _ := f.mustDo(t, "POST", "/v1/signals", body, 422)
		var p Problem
		if err := json.Unmarshal([]byte(text), &p); err != nil || p.Code != "invalid" || len(p.Errors) != 1 || p.Errors[0].Location != location {
			t.Errorf("%.60s: %s", body, text)
		}
	}
	if len(f.rt.got) != 0 {
		t.Errorf("applied: %+v", f.rt.got)
	}
	f.mustDo(t, "POST", "/v1/signals", "", 400)
	off := mustServe(t, func(c *Config) { c.NoSignals = true })
	off.mustDo(t, "POST", "/v1/signals", `[]`, 403)
}

func TestBatchLimits(t *testing.T) {
	f := mustServe(t, nil)
	one := `{"event":"pause.start","call":"c1"}`
	if got := f.mustBatch(t, `[]`); len(got) != 0 {
		t.Errorf("%+v", got)
	}
	if got := f.mustBatch(t, `[`+strings.Repeat(one+",", batchSignalsMax-1)+one+`]`); len(got) != batchSignalsMax || len(f.rt.got) != batchSignalsMax {
		t.Errorf("%d results, %d applied", len(got), len(f.rt.got))
	}
	// A batch may be larger than a signal, but not without end.
	long := `{"event":"pause.start","call":"c1","flow":"` + strings.Repeat("x", bodyBytesMax) + `"}`
	if got := f.mustBatch(t, `[`+long+`,`+one+`]`); got[0].Status != 422 || got[1].Status != 200 {
		t.Errorf("%+v", got)
	}
	f.mustDo(t, "POST", "/v1/signals", `[`+strings.Repeat(long+",", batchBytesMax/bodyBytesMax)+one+`]`, 413)
	f.batches.Store(batchesMax)
	if body, _ := f.mustDo(t, "POST", "/v1/signals", `[]`, 503); !strings.Contains(body, `"busy"`) {
		t.Error(body)
	}
	f.batches.Store(0)
	f.mustBatch(t, `[]`)
	if n := f.batches.Load(); n != 0 {
		t.Errorf("%d batches are under way", n)
	}
}

func FuzzBatch(f *testing.F) {
	for _, s := range []string{
		`[]`, `[{"event":"pause.start","call":"c1"}]`, `{"signals":[{"event":"hold.end","sip_call_id":"a/b c@example"},{}]}`, `{"signals":`, `[[[`, `[1,"x",null,{}]`,
		"\xff", `{"SIGNALS":[]}`, ` [ { } ] `, `[{"event":"attrs.set","call":"c1","attrs":{"a":"b"}}]x`,
	} {
		f.Add(s)
	}
	rt := newFakeRuntime()
	s := New(Config{Runtime: rt, Library: &fakeLibrary{}, Token: token})
	f.Fuzz(func(t *testing.T, body string) {
		rt.got = nil
		req := httptest.NewRequest("POST", "/v1/signals", strings.NewReader(body))
		req.Header.Set("Authorization", "Bearer "+token)
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, req)
		var got struct{ Results []Result }
		switch w.Code {
		case http.StatusOK:
			if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || len(got.Results) > batchSignalsMax {
				t.Fatalf("%s: %v", w.Body, err)
			}
			fine := 0
			for _, r := range got.Results {
				if (r.Status == 200) != (r.Applied != nil) || (r.Status == 200) == (r.Problem != nil) {
					t.Errorf("result %+v", r)
				}
				if r.Status == 200 {
					fine++
				}
			}
			if fine != len(rt.got) {
				t.Errorf("%d applied, %d told", len(rt.got), fine)
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
