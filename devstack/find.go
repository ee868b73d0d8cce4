package devstack

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// MissingServer is the error for a program that is not installed.
type MissingServer struct {
	Program string // file name
	Install string // what to do about it
}

func (e *MissingServer) Error() string {
	return fmt.Sprintf("%s is not installed: %s", e.Program, e.Install)
}

// binaries are the paths of the programs; "" for those not asked for.
type binaries struct {
	postgres postgresBin
	redis    string
	temporal string
}

// postgresBin is one installed version of Postgres.
type postgresBin struct {
	dir   string // with postgres and initdb
	major int
}

// findServers looks for the programs that o needs. Its error names all that are missing.
func findServers(o Options) (binaries, error) {
	var b binaries
	var errs [3]error
	if o.Postgres {
		b.postgres, errs[0] = findPostgres(dataMajor(o))
	}
	if o.Redis {
		b.redis, errs[1] = findRedis(os.Getenv("PATH"))
	}
	if o.Temporal {
		b.temporal, errs[2] = findTemporal(o)
	}
	return b, errors.Join(errs[:]...)
}

// dataMajor is the major version of Postgres that has written the data in o.Dir, and 0 if there are none.
func dataMajor(o Options) int {
	if o.Dir == "" || o.Ephemeral {
		return 0
	}
	user, err := dropTo(os.Geteuid())
	if err != nil {
		return 0
	}
	dir, err := placeDir(o.Dir, user)
	if err != nil {
		return 0
	}
	b, err := os.ReadFile(filepath.Join(dir, "postgres", "PG_VERSION"))
	if err != nil {
		return 0
	}
	major, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0
	}
	return major
}

// postgresDirs are the folders in which package managers put postgres and initdb without putting them on PATH.
var postgresDirs = []string{
	"/usr/lib/postgresql/*/bin",
	"/usr/pgsql-*/bin",
	"/opt/homebrew/opt/postgresql@*/bin",
	"/usr/local/opt/postgresql@*/bin",
	"/opt/homebrew/opt/postgresql/bin",
	"/usr/local/opt/postgresql/bin",
}

// findPostgres returns the Postgres to run: that of major version want if it is not 0, else the one on PATH, else the
// newest.
func findPostgres(want int) (postgresBin, error) {
	var dirs []string
	if onPath, err := exec.LookPath("postgres"); err == nil {
		// The file on PATH may be a link, and initdb lies beside the file it leads to.
		if real, err := filepath.EvalSymlinks(onPath); err == nil {
			dirs = append(dirs, filepath.Dir(real))
		}
	}
	for _, pattern := range postgresDirs {
		found, err := filepath.Glob(pattern)
		if err != nil {
			return postgresBin{}, fmt.Errorf("look for postgres in %s: %w", pattern, err)
		}
		dirs = append(dirs, found...)
	}
	var all []postgresBin
	for _, dir := range dirs {
		if !isProgram(filepath.Join(dir, "postgres")) || !isProgram(filepath.Join(dir, "initdb")) {
			continue
		}
		major, err := postgresMajor(filepath.Join(dir, "postgres"))
		if err != nil {
			return postgresBin{}, err
		}
		all = append(all, postgresBin{dir: dir, major: major})
	}
	if len(all) == 0 {
		return postgresBin{}, &MissingServer{"postgres", "apt-get install postgresql, or brew install postgresql@17"}
	}
	if want != 0 {
		if i := slices.IndexFunc(all, func(p postgresBin) bool { return p.major == want }); i >= 0 {
			return all[i], nil
		}
		return postgresBin{}, &MissingServer{fmt.Sprintf("postgres %d", want),
			fmt.Sprintf("the data was written by that version; install it, or delete the data (tallystick dev reset) to use version %d", all[0].major)}
	}
	if dirs[0] == all[0].dir && !strings.HasPrefix(dirs[0], "/usr/lib/postgresql/") {
		return all[0], nil
	}
	return slices.MaxFunc(all, func(a, b postgresBin) int { return cmp.Compare(a.major, b.major) }), nil
}

var majorIn = regexp.MustCompile(`\) (\d+)`)

// postgresMajor asks a postgres program for its major version.
func postgresMajor(path string) (int, error) {
	out, err := exec.Command(path, "--version").Output()
	if err != nil {
		return 0, fmt.Errorf("ask %s for its version: %w", path, err)
	}
	m := majorIn.FindSubmatch(out)
	if m == nil {
		return 0, fmt.Errorf("ask %s for its version: it answered %q", path, out)
	}
	major, err := strconv.Atoi(string(m[1]))
	if err != nil {
		return 0, fmt.Errorf("read the version of %s: %w", path, err)
	}
	return major, nil
}

// findRedis returns the path of a Redis or Valkey server as it is found: Debian's redis-server is a link to a program
// that looks at the name it was called by, so the link must not be followed. path is a list of folders as in PATH.
func findRedis(path string) (string, error) {
	dirs := append(filepath.SplitList(path), "/usr/bin", "/usr/local/bin", "/opt/homebrew/bin", "/opt/homebrew/opt/redis/bin", "/usr/local/opt/redis/bin")
	for _, name := range []string{"redis-server", "valkey-server"} {
		for _, dir := range dirs {
			if p := filepath.Join(dir, name); filepath.IsAbs(p) && isProgram(p) {
				return p, nil
			}
		}
	}
	return "", &MissingServer{"redis-server", "apt-get install redis-server, or brew install redis"}
}

// findTemporal returns the path of the Temporal CLI, see [Options.TemporalBin].
func findTemporal(o Options) (string, error) {
	if o.TemporalBin != "" {
		if !isProgram(o.TemporalBin) {
			return "", &MissingServer{o.TemporalBin, "there is no such program"}
		}
		return filepath.Abs(o.TemporalBin)
	}
	var places []string
	if o.Dir != "" {
		places = append(places, filepath.Join(o.Dir, "bin", "temporal"))
	}
	if self, err := os.Executable(); err == nil {
		places = append(places, filepath.Join(filepath.Dir(self), "temporal"))
	}
	if wd, err := os.Getwd(); err == nil {
		for dir := wd; ; dir = filepath.Dir(dir) {
			places = append(places, filepath.Join(dir, ".tallystick", "bin", "temporal"))
			if dir == filepath.Dir(dir) {
				break
			}
		}
	}
	for _, p := range places {
		if isProgram(p) {
			return filepath.Abs(p)
		}
	}
	if p, err := exec.LookPath("temporal"); err == nil {
		return filepath.Abs(p)
	}
	return "", &MissingServer{"temporal", "deploy/bootstrap.sh builds it, or brew install temporal"}
}

// isProgram reports whether path is a file that may be executed.
func isProgram(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0
}
