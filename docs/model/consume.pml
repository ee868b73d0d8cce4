/* The consume protocol of ../protocol.md: one customer, a hard-capped balance, every interleaving within the bounds below.
 *
 *   P  what the Postgres primary shows              S  its synchronous standby
 *   F  what the one transaction in flight will make of it (the lock on customer_heads allows no other)
 *      fl: 0 none | 1 executing | 2 COMMIT sent, WAL flushed here | 3 flushed on the standby too
 *   R  the copy in Redis, X its asynchronous replica (as stale as it likes); R may also be garbage
 *
 * Keys 0 and 1 are two consumptions (of 2 and 1 credits), key 2 is a grant of 1. There are 2 credits at the start.
 * A key may have two attempts under way at once: the client repeats while the first still runs, or after it was killed.
 * A mutation (-DM_...) removes one rule. The checker must then find a run that breaks an invariant.
 */
#define NONE 0
#define OKAY 1
#define DENY 2
#define START 2              /* credits granted at the start */
#define AMT(k) ((k)==0 -> 2 : 1)

/* Configurations, each explored to the end:
 *  CFG_RETRY    two attempts of each consumption and the grant; 1 Postgres fault
 *  CFG_RETRY2   two attempts of key 0, one of key 1, the grant; 2 Postgres faults
 *  CFG_UNKNOWN  one attempt of each key, which tries up to 3 times while its outcome is unknown; 3 Postgres faults
 *  CFG_CACHE    one attempt of each key and a cache loader; REDISF Redis faults, 1 Postgres fault
 *  CFG_CACHEDUP the same with two attempts of key 0 in place of keys 0 and 1 */
#ifdef CFG_RETRY
#define NATT 5
#define NT 1
#define PGF 1
#endif
#ifdef CFG_RETRY2
#define NATT 4
#define NT 1
#define PGF 2
#endif
#ifdef CFG_UNKNOWN
#define NATT 3
#define NT 3
#define PGF 3
#endif
#ifdef CFG_CACHEDUP
#define CFG_CACHE
#endif
#ifdef CFG_CACHE
#define NATT 3
#define NT 1
#ifndef PGF
#define PGF 1
#endif
#ifndef REDISF
#define REDISF 3
#endif
#endif

typedef St { byte ver; int av; byte id[3] };
St P; St S; St F;
byte fl = 0; byte fowner = 0; bool sent = false;
byte tl = 1;                  /* timeline of Postgres: the epoch of cached snapshots */
byte res[7];                  /* per attempt: 0 wait, 1 committed, 2 unknown, 3 committed with WARNING (wait cancelled) */

bool rp = true;  byte rt = 1; byte rv = 0; int ra = START;     /* Redis: present, epoch, version, available */
bool xp = true;  byte xt = 1; byte xv = 0; int xa = START;     /* its replica */

/* ghosts */
byte ans[3];                  /* first answer given to any caller of key k */
bool candeny[3];              /* some moment since the first invocation of k the committed balance was < amount */
bool inv[3];
byte done = 0; byte nf = 0; byte np = 0;
byte rid[3];                  /* M_IDEM_REDIS only: idempotency markers kept in Redis */
bool clean = true;            /* ghost: no fault and no confirm lost so far */

inline ghost() {              /* after every change of the visible state */
  if :: inv[0] && P.av < AMT(0) -> candeny[0] = true :: else fi;
  if :: inv[1] && P.av < AMT(1) -> candeny[1] = true :: else fi;
  assert(P.av >= 0);                                            /* I1 no overspend */
  assert(P.av == START + (P.id[2]==OKAY -> 1:0) - (P.id[0]==OKAY -> 2:0) - (P.id[1]==OKAY -> 1:0)); /* I2 once per key */
  assert(!(ans[0]==OKAY && P.id[0]!=OKAY)); assert(!(ans[1]==OKAY && P.id[1]!=OKAY));  /* I3 acked is never lost */
  assert(!(ans[2]==OKAY && P.id[2]!=OKAY));
  assert(!(ans[0]==DENY && P.id[0]==OKAY)); assert(!(ans[1]==DENY && P.id[1]==OKAY));  /* I4 a denial is final */
}
#define same(A,B) (A.ver==B.ver && A.id[0]==B.id[0] && A.id[1]==B.id[1] && A.id[2]==B.id[2])
#define setst(A,B) A.ver=B.ver; A.av=B.av; A.id[0]=B.id[0]; A.id[1]=B.id[1]; A.id[2]=B.id[2]
inline answer(k_,v_) {
  assert(ans[k_]==NONE || ans[k_]==v_);                            /* I5 one answer per key */
  assert(v_!=DENY || candeny[k_]);                                /* I6 a denial was true at some moment of the call */
  ans[k_]=v_; ghost();
}
inline rload(t_,v_,a_) {         /* the only way to write a snapshot into Redis: (epoch,version) must not go back */
#ifdef M_NO_VER_CMP
  rp=true; rt=t_; rv=v_; ra=a_;
#else
#ifdef M_NO_EPOCH
  if :: !rp || v_ > rv -> rp=true; rt=t_; rv=v_; ra=a_ :: else fi;
#else
  if :: !rp || t_ > rt || (t_==rt && v_ >= rv) -> rp=true; rt=t_; rv=v_; ra=a_ :: else fi;
#endif
#endif
}

proctype Attempt(byte me; byte k) {
  byte tries=0; byte hint=0; byte v=0; int seen=0; byte lt; byte lv; int la; bool changed=false;
  atomic { inv[k]=true; ghost() }
again:
  tries++;
  if :: tries > NT -> goto out :: else fi;
  /* 1. Redis proposes (or is skipped): hint only */
  /*    In the correct protocol the proposal influences no decision, so it is only modelled where a mutation uses it. */
#if defined(M_REDIS_DECIDES) || defined(M_REDIS_VETO)
  atomic {
    if :: rp && k<2 -> hint = (ra >= AMT(k) -> OKAY : DENY)
       :: hint = NONE                      /* Redis down, timeout, MISS */
    fi }
#endif
#ifdef M_IDEM_REDIS
  atomic { if :: rp && rid[k]!=NONE -> goto out /* duplicate: refused */
              :: rp && rid[k]==NONE -> rid[k]=OKAY
              :: !rp fi }
#endif
#ifdef M_STALE_READ
  seen = P.av;                             /* balance read before (or in the same statement as) the lock */
#endif
  /* 2. Postgres disposes: row lock, then read, decide, write - one transaction */
  atomic {
    fl==0 -> fl=1; fowner=me; sent=false; res[me]=0; setst(F,P);
    if
    :: 
#ifdef M_IDEM_REDIS
       false
#else
       P.id[k] != NONE 
#endif
       -> v = P.id[k]                      /* replay of a stored decision (success or denial) */
    :: else ->
       if
       :: k==2 -> F.av = F.av+1; F.ver++; F.id[2]=OKAY; v=OKAY
       :: k<2 ->
#ifdef M_REDIS_DECIDES
          if :: hint==OKAY || (hint==NONE && F.av>=AMT(k)) -> F.av=F.av-AMT(k); F.ver++; F.id[k]=OKAY; v=OKAY
             :: hint==DENY || (hint==NONE && F.av<AMT(k)) -> F.id[k]=DENY; v=DENY fi
#else
#ifdef M_REDIS_VETO   /* alternative V1: Redis decides, Postgres only vetoes overspend */
          if :: hint!=DENY && F.av>=AMT(k) -> F.av=F.av-AMT(k); F.ver++; F.id[k]=OKAY; v=OKAY
             :: else -> F.id[k]=DENY; v=DENY fi
#else
#ifdef M_STALE_READ
          if :: seen>=AMT(k) -> F.av=F.av-AMT(k); F.ver++; F.id[k]=OKAY; v=OKAY
             :: seen< AMT(k) -> F.id[k]=DENY; v=DENY fi
#else
          if :: F.av>=AMT(k) -> F.av=F.av-AMT(k); F.ver++; F.id[k]=OKAY; v=OKAY
#ifdef M_NO_DENY_ROW
             :: F.av< AMT(k) -> v=DENY
#else
             :: F.av< AMT(k) -> F.id[k]=DENY; v=DENY
#endif
          fi
#endif
#endif
#endif
       fi
    fi;
#ifdef CFG_CACHE
    changed = (F.ver!=P.ver); lt=tl; lv=F.ver; la=F.av       /* the after-image that the commit would make true */
#endif
  }
#ifdef M_ACK_EARLY
  atomic { if :: fl==1 && fowner==me -> answer(k,v) :: else fi }    /* answering before COMMIT returned */
#endif
#ifdef M_REPLAY_NOFENCE
  /* answering a replay from a plain read, without waiting for a commit behind it */
  atomic { if :: fl==1 && fowner==me && P.id[k]!=NONE -> fl=0; answer(k,v); goto out :: else fi }
#endif
  atomic { if :: fl==1 && fowner==me -> if :: sent=true :: fl=0; goto out /* kill -9 before COMMIT: rollback */ fi
              :: else fi }                     /* else: the server died meanwhile, res is set */
  if :: clean=false; goto out              /* kill -9 after COMMIT was sent: the backend goes on */
     :: atomic { res[me]!=0;
    if
    :: res[me]==1 -> answer(k,v)
    :: res[me]==2 -> goto again            /* connection lost in COMMIT: outcome unknown -> same key again */
    :: res[me]==3 ->
#ifdef M_CANCEL_ACK
       answer(k,v)
#else
       goto again
#endif
    fi
  } fi;
#ifdef CFG_CACHE
  atomic { if :: !changed                /* a replay or a refusal: nothing to bring to the cache */
              :: changed -> rload(lt,lv,la)
              :: changed -> clean=false  /* kill -9 before the cache was told */
           fi }
#endif
out:
  atomic { if :: res[me]!=1 -> clean=false :: else fi; if :: fl==1 && fowner==me && !sent -> fl=0 :: else fi; done++; res[me]=0; hint=0; v=0; seen=0; lt=0; lv=0; la=0; changed=false; tries=0 }
}

/* the Postgres server: flush, stream, become visible; crash, failover, cancelled waits */
proctype Pg() {
  do
  :: atomic { fl==1 && sent -> fl=2
#ifdef M_ASYNC_REPL
              ; setst(P,F); if :: true -> res[fowner]=1 fi; fl=0; ghost()
#endif
            }
  :: atomic { fl==2 -> setst(S,F); fl=3 }
  :: atomic { fl==3 -> setst(P,F); res[fowner]=1; fl=0; ghost() }
  :: atomic { fl==0 && !same(S,P) -> setst(S,P) }       /* the standby catches up after a restart or a cancelled wait */
  :: atomic { np<PGF && fl==2 -> np++; clean=false; setst(P,F); res[fowner]=3; fl=0; ghost() }           /* wait cancelled: visible, not replicated */
  :: atomic { np<PGF && fl>0 -> np++; clean=false; if :: fl>=2 -> setst(P,F) :: else fi;                  /* crash + restart of the primary */
              res[fowner]=2; fl=0; ghost() }
  :: atomic { np<PGF -> np++; clean=false; setst(P,S); tl++;                                              /* failover to the standby */
              if :: fl>0 -> res[fowner]=2 :: else fi; fl=0; ghost() }
  :: done==NATT && fl==0 -> break
  od
}

#ifdef CFG_CACHE
/* Redis faults + a cache loader that reads Postgres at one moment and writes Redis at a later one */
proctype Cache() {
  byte lt=1; byte lv=0; int la=START;
  do
  :: atomic { lt=tl; lv=P.ver; la=P.av }                       /* loader read (plain, unfenced) */
  :: atomic { nf<REDISF -> nf++; rload(lt,lv,la) }              /* delayed load */
  :: atomic { nf<REDISF -> nf++; xp=rp; xt=rt; xv=rv; xa=ra }   /* async replication happens now */
  :: atomic { nf<REDISF -> nf++; clean=false; rp=xp; rt=xt; rv=xv; ra=xa;    /* failover to the stale replica */
#ifdef M_IDEM_REDIS
              rid[0]=NONE; rid[1]=NONE; rid[2]=NONE
#endif
            }
  :: atomic { nf<REDISF -> nf++; clean=false; rp=false; rid[0]=NONE; rid[1]=NONE; rid[2]=NONE }   /* FLUSHALL / eviction */
  :: atomic { nf<REDISF -> nf++; clean=false; ra = 9 }                       /* garbage: claims plenty */
  :: atomic { nf<REDISF -> nf++; clean=false; ra = 0 }                       /* garbage: claims nothing */
  :: atomic { done==NATT && fl==0 && same(S,P) ->          /* quiescent: one sweep of the reconciler */
       assert(!clean || (rp && ra==P.av && rv==P.ver));         /* I8 without faults no sweep is ever needed */
       if :: rp && rt==tl && rv==P.ver && ra!=P.av -> ra=P.av   /* same version, other content: corruption, overwrite */
          :: else -> lt=tl; lv=P.ver; la=P.av; rload(lt,lv,la) fi;
       assert(rp && ra==P.av && rv==P.ver);                     /* I7 drift repaired by one sweep */
       break }
  od
}
#endif

init {
  atomic {
    P.av=START; S.av=START; ghost();
    run Pg();
#ifdef CFG_CACHEDUP
    run Attempt(1,0); run Attempt(2,0); run Attempt(3,2);
#else
    run Attempt(1,0); run Attempt(2,1); run Attempt(3,2);
#endif
#ifdef CFG_CACHE
    run Cache();
#endif
#ifdef CFG_RETRY
    run Attempt(4,0); run Attempt(5,1)
#endif
#ifdef CFG_RETRY2
    run Attempt(4,0)
#endif
  }
}
