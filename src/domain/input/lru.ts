/** Maps as caches of the most recently used entries. A map keeps the order of insertion, so an entry that is put again is last. */

/**
 * Puts an entry last. Beyond `max` entries the first is removed, and `forgotten` is called with its value. While the map is at most half
 * full, a known entry keeps its place, which takes a quarter of the time: an entry in use is put last before any entry is removed.
 */
export const put = <K, V>(
  map: Map<K, V>,
  key: K,
  value: V,
  max: number,
  forgotten: (value: V) => void = () => {}
): void => {
  if (2 * map.size <= max && map.has(key)) {
    map.set(key, value)
    return
  }
  map.delete(key)
  map.set(key, value)
  if (map.size <= max) return
  for (const [oldest, gone] of map) {
    if (map.size <= max) return
    map.delete(oldest)
    forgotten(gone)
  }
}

/** How many entries are looked at. With four, a table beyond its bound has at most three quarters of entries in use. */
const looks = 4

/**
 * Makes room in a map whose entries may be in use. It visits entries from the first on, removes idle ones, and moves those in use to the
 * end. The next visit continues from there, because a map with many removed entries is slow to read from its beginning. The iterator is
 * held weakly: one that stands still keeps every table that the map has had since, with the keys of each.
 */
export class Shedder<K, V> {
  private readonly map: Map<K, V>
  private readonly isIdle: (value: V) => boolean
  private readonly forgotten: (value: V) => void
  private entries: WeakRef<MapIterator<[K, V]>> | undefined

  constructor(map: Map<K, V>, isIdle: (value: V) => boolean, forgotten: (value: V) => void = () => {}) {
    this.map = map
    this.isIdle = isIdle
    this.forgotten = forgotten
  }

  /** Removes idle entries until at most `max` are left. It visits at most `upTo` entries, so the cost of a new entry is bounded. */
  shed(max: number, upTo = looks): void {
    const { map } = this
    for (let left = Math.min(upTo, map.size); left > 0 && map.size > max; left--) {
      const [key, value] = this.next()
      map.delete(key)
      if (this.isIdle(value)) this.forgotten(value)
      else map.set(key, value)
    }
  }

  private next(): [K, V] {
    const found = this.entries?.deref()?.next()
    if (found !== undefined && found.done !== true) return found.value
    const entries = this.map.entries()
    this.entries = new WeakRef(entries)
    return entries.next().value!
  }
}
