package main

import (
	"encoding/json"
	"fmt"
)

// addManifest sums up what a recording says of itself.
func (r *recorded) addManifest(text []byte) error {
	var m struct {
		AudioMS  int64 `json:"audio_ms"`
		Segments []struct {
			Bytes int64 `json:"bytes"`
		} `json:"segments"`
		Gaps []struct {
			Cause      string `json:"cause"`
			DurationMS int    `json:"duration_ms"`
		} `json:"gaps"`
	}
	if err := json.Unmarshal(text, &m); err != nil {
		return fmt.Errorf("manifest: %w", err)
	}
	r.AudioMS += m.AudioMS
	for _, s := range m.Segments {
		r.Bytes += s.Bytes
	}
	for _, g := range m.Gaps {
		r.GapMS[g.Cause] += g.DurationMS
		if g.Cause == "overrun" {
			r.OverrunMS += g.DurationMS
		}
	}
	return nil
}
