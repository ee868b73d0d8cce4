-- load: put a snapshot of a customer's grants into the cache. The only script that writes authoritative state.
--   KEYS[1] b:{customer}  hash: e epoch, v version, n grants stored, m 1 when there are more, i<k> and a<k> for k = 1..n in draw-down order,
--           s shape (changes with any n, m or i), j the balances as they are shown, x the instant until which j is right (microseconds, -1 for ever),
--           t the end of its life, ms of this server's clock; its time to live may be shortened, this tells its age
--   ARGV[1] epoch, 8 hexadecimal digits   ARGV[2] version, decimal   ARGV[3] time to live, ms   ARGV[4..] field, value, field, value, ...
--   Replies 1 when stored, 0 when what is stored is newer. The same (epoch, version) overwrites: that undoes tentative
--   decrements and repairs corruption.
local kind = redis.call('TYPE', KEYS[1]).ok
if kind == 'hash' then
  local have = redis.call('HMGET', KEYS[1], 'e', 'v')
  local e, v = have[1], have[2]
  if e and v then
    if ARGV[1] < e then return 0 end
    -- versions are compared as decimal text: exact at any size
    if ARGV[1] == e and (#ARGV[2] < #v or (#ARGV[2] == #v and ARGV[2] < v)) then return 0 end
  end
end
if kind ~= 'none' then redis.call('DEL', KEYS[1]) end
local now = redis.call('TIME')
local ends = string.format('%.0f', now[1] * 1000 + math.floor(now[2] / 1000) + ARGV[3])
redis.call('HSET', KEYS[1], 'e', ARGV[1], 'v', ARGV[2], 't', ends, unpack(ARGV, 4))
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
