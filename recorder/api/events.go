package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/trunktap/trunktap/recorder"
)

func (s *Server) eventRoute() {
	op := raw(operation("events", http.MethodGet, "/v1/events", "Events from now on (server-sent events)"), "text/event-stream", eventsDoc())
	op.Responses["200"].Content["text/event-stream"].Schema = s.api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[recorder.Event](), true, "Event")
	huma.Register(s.api, op, func(context.Context, *nothing) (*huma.StreamResponse, error) {
		if s.subscribers.Add(1) > int64(s.cfg.SubscribersMax) {
			s.subscribers.Add(-1)
			return nil, newProblem(http.StatusServiceUnavailable, "busy", "too many subscribers of events")
		}
		return stream(func(w http.ResponseWriter, r *http.Request) {
			defer s.subscribers.Add(-1)
			s.events(w, r)
		}), nil
	})
}

// events passes on events until the peer goes, the server stops or the
// recorder ends the subscription.
func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	events, cancel := s.cfg.Runtime.Subscribe()
	defer cancel()
	control := http.NewResponseController(w)
	w.Header().Set("Content-Type", "text/event-stream")
	w.WriteHeader(http.StatusOK)
	if send(w, control, []byte(": trunktap\n\n")) != nil {
		return
	}
	heartbeat := time.NewTicker(heartbeatInterval)
	defer heartbeat.Stop()
	for {
		var message []byte
		select {
		case <-r.Context().Done():
			return
		case <-s.stopping.Done():
			return
		case <-heartbeat.C:
			message = []byte(": heartbeat\n\n")
		case e, ok := <-events:
			if !ok {
				return
			}
			var err error
			if message, err = frame(e); err != nil {
				s.cfg.Log.Error("encode an event", "type", e.Type, "error", err)
				continue
			}
		}
		if send(w, control, message) != nil {
			return
		}
	}
}

func send(w http.ResponseWriter, control *http.ResponseController, message []byte) error {
	if _, err := w.Write(message); err != nil {
		return err
	}
	return control.Flush()
}

// frame writes one event in the format of the HTML standard, section 9.2.
// JSON has no line breaks, so data is one line.
func frame(e recorder.Event) ([]byte, error) {
	data, err := json.Marshal(e)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "id: %d\nevent: %s\ndata: %s\n\n", e.Seq, e.Type, data)
	return b.Bytes(), nil
}
