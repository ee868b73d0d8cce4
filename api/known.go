package api

import (
	"context"
	"strings"
	"sync"

	"github.com/tallystick/tallystick/credit"
)

// known remembers facts that never change once they are true, up to a bound. Its methods may be called from many goroutines.
type known[K comparable, V any] struct {
	mu    sync.RWMutex
	facts map[K]V
	limit int
}

func newKnown[K comparable, V any](limit int) *known[K, V] {
	return &known[K, V]{facts: make(map[K]V), limit: limit}
}

func (k *known[K, V]) get(key K) (V, bool) {
	k.mu.RLock()
	v, ok := k.facts[key]
	k.mu.RUnlock()
	return v, ok
}

func (k *known[K, V]) put(key K, v V) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, ok := k.facts[key]; !ok && len(k.facts) >= k.limit {
		for victim := range k.facts { // any one will do: what is missing is read again
			delete(k.facts, victim)
			break
		}
	}
	k.facts[key] = v
}

func (k *known[K, V]) drop(key K) {
	k.mu.Lock()
	delete(k.facts, key)
	k.mu.Unlock()
}

// clear forgets everything.
func (k *known[K, V]) clear() {
	k.mu.Lock()
	clear(k.facts)
	k.mu.Unlock()
}

// names finds customers and members by what callers call them. A customer's external id, like a member's, is given once and for
// ever, so what was found is remembered; what was not found is looked up every time.
type names struct {
	customers *known[string, credit.CustomerID]
	members   *known[memberName, credit.MemberID]
}

type memberName struct {
	customer credit.CustomerID
	text     string
}

// maxKnown bounds each cache: about 20 MB when full.
const maxKnown = 100_000

func newNames() names {
	return names{newKnown[string, credit.CustomerID](maxKnown), newKnown[memberName, credit.MemberID](maxKnown)}
}

// Prefixes that tell our ids from the business's own.
const (
	customerPrefix = "cus_"
	memberPrefix   = "mem_"
	cardPrefix     = "crd_"
)

// externalID tells whether text can be a business's own id. None begins like one of ours, so that each text names one thing at most.
func externalID(text, prefix string) bool {
	return text != "" && len(text) <= 255 && !strings.HasPrefix(text, prefix) && printable(text)
}

const externalIDForm = "1 to 255 printable bytes that do not begin like an id of ours"

// customerID finds a customer by its id or external id. An id of ours is only parsed: whether the customer exists shows later.
func (s *Server) customerID(ctx context.Context, text string) (credit.CustomerID, error) {
	if strings.HasPrefix(text, customerPrefix) {
		return credit.ParseID[credit.CustomerID](text)
	}
	if id, ok := s.names.customers.get(text); ok {
		return id, nil
	}
	if !externalID(text, customerPrefix) {
		return credit.CustomerID{}, credit.Errorf(credit.InvalidID, "A customer is named by its id or by an external id of 1 to 255 printable bytes.")
	}
	id, err := s.store.CustomerID(ctx, text)
	if err == nil {
		s.names.customers.put(strings.Clone(text), id)
	}
	return id, err
}

// memberID finds a customer's member by its id or external id.
func (s *Server) memberID(ctx context.Context, customer credit.CustomerID, text string) (credit.MemberID, error) {
	name := memberName{customer, text}
	if id, ok := s.names.members.get(name); ok {
		return id, nil
	}
	var id credit.MemberID
	var err error
	if strings.HasPrefix(text, memberPrefix) {
		if id, err = credit.ParseID[credit.MemberID](text); err != nil {
			return id, err
		}
	} else if !externalID(text, memberPrefix) {
		return id, credit.Errorf(credit.InvalidID, "A member is named by its id or by an external id of 1 to 255 printable bytes.")
	}
	if id, err = s.store.MemberID(ctx, customer, id, text); err == nil {
		name.text = strings.Clone(text)
		s.names.members.put(name, id)
	}
	return id, err
}
