package main

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/archive"
)

// TestKeyless: while a former key service is away it is asked at longer and longer
// intervals, and what is known is told once.
func TestKeyless(t *testing.T) {
	var k keyless
	now := time.Unix(1_800_000_000, 0)
	away := func(id string) archive.Recovered {
		return archive.Recovered{ID: id, Err: fmt.Errorf("open %s: %w", id, recorder.ErrKeyUnreachable)}
	}
	if ids := k.due(true, now); len(ids) > 0 {
		t.Errorf("%v before anything waits", ids)
	}
	if news := k.take([]archive.Recovered{{ID: "fine"}, away("b"), away("a"), {ID: "bad", Err: errors.New("torn")}}, now); len(news) != 4 {
		t.Errorf("told of %v", news)
	}
	tries, told := 0, 0
	for range 600 / 5 { // ten minutes of catching up every 5 s
		if now = now.Add(catchUpEvery); len(k.due(true, now)) > 0 {
			tries++
			told += len(k.take([]archive.Recovered{away("a"), away("b")}, now))
		}
	}
	if tries < 9 || tries > 14 || told != 0 {
		t.Errorf("%d tries, %d times told", tries, told)
	}
	revoked := archive.Recovered{ID: "a", Err: recorder.ErrKeyRevoked}
	if news := k.take([]archive.Recovered{revoked, away("b")}, now); len(news) != 1 || news[0].ID != "a" {
		t.Errorf("told of %v after a change", news)
	}
	if ids := k.due(true, now.Add(catchUpEvery)); len(ids) != 2 || ids[0] != "a" {
		t.Errorf("%v is tried soon after a change", ids)
	}
	k.take([]archive.Recovered{revoked, away("b")}, now)
	if ids := k.due(false, now.Add(time.Hour)); len(ids) > 0 {
		t.Errorf("%v while the active service is away", ids)
	}
	if ids := k.due(true, now.Add(time.Second)); len(ids) != 2 {
		t.Errorf("%v when it is back", ids)
	}
	if news := k.take([]archive.Recovered{{ID: "a"}, {ID: "b"}}, now); len(news) != 2 || len(k.why) != 0 {
		t.Errorf("told of %v, %d wait", news, len(k.why))
	}
}
