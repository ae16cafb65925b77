package codec

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/trunktap/trunktap/media"
)

// What the documentation lists is decoded at those rates, and what is decoded is listed.
func TestDocumentedCodecs(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "codecs.md"))
	if err != nil {
		t.Fatal(err)
	}
	listed := map[media.Format]bool{}
	row := regexp.MustCompile("(?m)^\\| (`[^|]+`) \\| ([0-9 ]+) \\| ([^|]+) \\|")
	decoded, recorded, ok := strings.Cut(string(page), "## Formats of recordings")
	if !ok {
		t.Fatal("the page has no section of recording formats")
	}
	for _, format := range formats {
		if !strings.Contains(recorded, "`"+format+"`") {
			t.Errorf("recording format %s is not listed", format)
		}
	}
	for _, m := range row.FindAllStringSubmatch(decoded, -1) {
		for _, name := range strings.Fields(m[1]) {
			for _, clock := range strings.Fields(m[2]) {
				f := media.Format{Name: strings.Trim(name, "`"), ClockRate: must(strconv.Atoi(clock))}
				listed[f] = true
				d, err := NewDecoder(f, DecoderOptions{})
				if err != nil {
					t.Error(err)
					continue
				}
				want := f.ClockRate
				if rate, err := strconv.Atoi(strings.Fields(m[3])[0]); err == nil {
					want = rate
				}
				if d.Rate() != want {
					t.Errorf("%+v: %d Hz, listed with %d", f, d.Rate(), want)
				}
				d.Close()
			}
		}
	}
	for _, tt := range streams {
		if f := (media.Format{Name: tt.format.Name, ClockRate: tt.format.ClockRate}); !listed[f] {
			t.Errorf("%+v is decoded and not listed", f)
		}
	}
}

func must(n int, err error) int {
	if err != nil {
		panic(err)
	}
	return n
}
