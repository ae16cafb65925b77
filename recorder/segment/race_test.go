//go:build race

package segment

// raceEnabled tells that pools lose what they hold at random.
const raceEnabled = true
