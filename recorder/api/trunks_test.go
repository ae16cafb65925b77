package api

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestTrunks(t *testing.T) {
	s := New(Config{Runtime: newFakeRuntime(), Token: token, Trunks: func() Trunks {
		return Trunks{NextHops: []NextHop{{Trunk: "a", Side: "external", URI: "sip:192.0.2.1", Up: true}}, Registrations: []Registration{}}
	}})
	ask := func(authorization string) *httptest.ResponseRecorder {
		req := httptest.NewRequest(http.MethodGet, "/v1/trunks", nil)
		req.Header.Set("Authorization", authorization)
		w := httptest.NewRecorder()
		s.http.Handler.ServeHTTP(w, req)
		return w
	}
	if w := ask("Bearer wrong"); w.Code != http.StatusUnauthorized {
		t.Errorf("%d without the token", w.Code)
	}
	w := ask("Bearer " + token)
	var got Trunks
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != http.StatusOK {
		t.Fatalf("%d %v", w.Code, err)
	}
	if len(got.NextHops) != 1 || !got.NextHops[0].Up || got.Registrations == nil {
		t.Errorf("%s", w.Body)
	}
}
