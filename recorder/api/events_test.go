package api

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trunktap/trunktap/recorder"
)

func TestEvents(t *testing.T) {
	f := mustServe(t, nil)
	resp := f.request(t, "GET", "/v1/events", "")
	if ct := resp.Header.Get("Content-Type"); ct != "text/event-stream" {
		t.Fatalf("type %q", ct)
	}
	<-f.rt.changed
	at := time.Date(2026, 11, 22, 16, 0, 0, 0, time.UTC)
	f.rt.publish(recorder.Event{Seq: 7, Type: "call.started", At: at, Call: "c1", Data: map[string]string{"text": "a\nb"}})
	f.rt.publish(recorder.Event{Seq: 12, Type: "alarm", At: at, Missed: 4})
	want := ": trunktap\n\n" +
		"id: 7\nevent: call.started\n" + `data: {"seq":7,"type":"call.started","at":"2026-11-22T16:00:00Z","call":"c1","data":{"text":"a\nb"}}` + "\n\n" +
		"id: 12\nevent: alarm\n" + `data: {"seq":12,"type":"alarm","at":"2026-11-22T16:00:00Z","missed":4}` + "\n\n"
	got := make([]byte, len(want))
	if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != want {
		t.Errorf("%v\n%s", err, got)
	}
	_ = resp.Body.Close()
	<-f.rt.changed // the peer went, so did its subscription
}

func TestEventsEndWithTheServer(t *testing.T) {
	f := mustServe(t, nil)
	resp := f.request(t, "GET", "/v1/events", "")
	<-f.rt.changed
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := f.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(resp.Body); err != nil || string(rest) != ": trunktap\n\n" {
		t.Errorf("%q %v", rest, err)
	}
}

func TestSubscribersAreBounded(t *testing.T) {
	f := mustServe(t, func(c *Config) { c.SubscribersMax = 2 })
	first := f.request(t, "GET", "/v1/events", "")
	f.request(t, "GET", "/v1/events", "")
	f.mustDo(t, "GET", "/v1/events", "", 503)
	<-f.rt.changed
	<-f.rt.changed
	_ = first.Body.Close()
	<-f.rt.changed
	// The place is free once the handler has returned, which is soon after.
	for range 1000 {
		resp := f.request(t, "GET", "/v1/events", "")
		if resp.StatusCode == http.StatusOK {
			return
		}
		_, _ = io.Copy(io.Discard, resp.Body)
	}
	t.Error("the place of a subscriber that went is not free")
}

func TestHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := newFakeRuntime()
		s := New(Config{Runtime: rt, Library: &fakeLibrary{}, Token: token})
		r, w := io.Pipe()
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		req := httptest.NewRequest("GET", "/v1/events", nil).WithContext(ctx)
		req.Header.Set("Authorization", "Bearer "+token)
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.Handler().ServeHTTP(pipeWriter{http.Header{}, w}, req)
		}()
		lines := bufio.NewScanner(r)
		begin := time.Now()
		beats := 0
		for beats < 3 && lines.Scan() {
			if strings.HasPrefix(lines.Text(), ": heartbeat") {
				beats++
			}
		}
		if took := time.Since(begin); took != 45*time.Second {
			t.Errorf("three heartbeats in %v", took)
		}
		cancel()
		go func() { _, _ = io.Copy(io.Discard, r) }()
		<-done
		_ = w.Close()
	})
}

type pipeWriter struct {
	header http.Header
	w      io.Writer
}

func (p pipeWriter) Header() http.Header         { return p.header }
func (p pipeWriter) WriteHeader(int)             {}
func (p pipeWriter) Write(b []byte) (int, error) { return p.w.Write(b) }
func (p pipeWriter) Flush()                      {}
