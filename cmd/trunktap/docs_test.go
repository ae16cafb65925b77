package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/trunktap/trunktap/cmd/trunktap/config"
)

var yamlBlock = regexp.MustCompile("(?s)```yaml\n(.*?)```")

// Every configuration that the documentation shows can be loaded.
func TestConfigurationsOfTheDocumentation(t *testing.T) {
	files, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := 0
	for _, file := range append(files, "../../README.md") {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range yamlBlock.FindAllSubmatch(text, -1) {
			blocks++
			block := string(m[1])
			if !strings.Contains(block, "trunks:\n") {
				block += "trunks: [{name: a, external: {next_hops: [\"sip:192.0.2.1\"]}, internal: {next_hops: [\"sip:10.0.0.5\"]}}]\n"
			}
			if _, faults := config.Parse(filepath.Base(file), []byte(block)); faults != nil {
				t.Errorf("%v\n%s", faults, block)
			}
		}
	}
	if blocks < 5 {
		t.Errorf("%d configurations found", blocks)
	}
}

func TestMemoryForPreroll(t *testing.T) {
	for recording, want := range map[string]bool{
		"": false, "consent: required": false, "consent: {mode: required, preroll: true}": true,
		"enabled: false, consent: {mode: required, preroll: true}": false,
	} {
		if got := wantsPreroll(mustConfig(t, recording, "", "")); got != want {
			t.Errorf("%s: %v", recording, got)
		}
	}
	if err := canLock(4096); err != nil {
		t.Error(err)
	}
	if err := canLock(1 << 60); err == nil {
		t.Error("an exabyte can be locked")
	}
}
