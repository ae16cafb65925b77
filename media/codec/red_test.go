package codec

import (
	"bytes"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSplitRED(t *testing.T) {
	tests := []struct {
		name string
		in   []byte
		want []Block
	}{
		{"primary alone", []byte{0, 1, 2}, []Block{{0, 0, []byte{1, 2}}}},
		{"primary alone, empty", []byte{96}, []Block{{96, 0, []byte{}}}},
		{"one redundant", []byte{0x85, 0x02, 0x80, 0x02, 7, 9, 9, 1}, []Block{{5, 160, []byte{9, 9}}, {7, 0, []byte{1}}}},
		{
			"longest offset and length", append([]byte{0x80 | 121, 0xff, 0xff, 0xff, 5}, make([]byte, 1024)...),
			[]Block{{121, 16383, make([]byte, 1023)}, {5, 0, []byte{0}}},
		},
		{
			"two redundant, one empty",
			[]byte{0x80, 0x05, 0, 0, 0x80, 0x02, 0x80, 1, 8, 3, 4, 5},
			[]Block{{0, 320, []byte{}}, {0, 160, []byte{3}}, {8, 0, []byte{4, 5}}},
		},
		{"nothing", nil, nil},
		{"no primary", []byte{0x80, 0, 0, 0}, nil},
		{"header cut off", []byte{0x80, 0, 0}, nil},
		{"block cut off", []byte{0x80, 0, 0, 3, 0, 1, 2}, nil},
		{"endless", bytes.Repeat([]byte{0x80, 0, 0, 0}, 40), nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := SplitRED(nil, tt.in)
			if (err == nil) != (tt.want != nil) || err != nil && (!errors.Is(err, ErrRED) || len(got) != 0) {
				t.Fatalf("%v, %v", got, err)
			}
			if diff := cmp.Diff(tt.want, got); err == nil && diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestSplitREDDoesNotAllocate(t *testing.T) {
	blocks, in := make([]Block, 0, 4), []byte{0x85, 0x02, 0x80, 0x02, 7, 9, 9, 1}
	if n := testing.AllocsPerRun(100, func() { blocks, _ = SplitRED(blocks[:0], in) }); n != 0 {
		t.Errorf("%v allocations a packet", n)
	}
}

func FuzzSplitRED(f *testing.F) {
	f.Add([]byte{0x85, 0x02, 0x80, 0x02, 7, 9, 9, 1})
	f.Add([]byte{0})
	f.Fuzz(func(t *testing.T, in []byte) {
		blocks, err := SplitRED(nil, in)
		if err != nil {
			if len(blocks) != 0 {
				t.Fatal("blocks of a malformed payload")
			}
			return
		}
		size := 1
		for i, b := range blocks {
			size += len(b.Payload)
			if i < len(blocks)-1 {
				size += 4
			} else if b.Offset != 0 {
				t.Fatal("the primary block is late")
			}
		}
		if size != len(in) || len(blocks) > redBlocksMax+1 {
			t.Fatalf("%d blocks with %d octets of %d", len(blocks), size, len(in))
		}
	})
}
