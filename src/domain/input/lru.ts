/** Maps that forget the least recently used entries. A map keeps the order of insertion, so an entry that is put again is last. */

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
 * A map of things that may be in use, such as pools by name, from the least to the most recently used. Only idle ones are forgotten.
 *
 * To make room it visits entries from the first on, removes idle ones, and moves those in use to the end. The next visit continues from
 * there, because a map with many removed entries is slow to read from its beginning. The iterator is held weakly: one that stands still
 * keeps every table that the map has had since, with the keys of each.
 */
export class Registry<K, V> extends Map<K, V> {
  private readonly isIdle: (value: V) => boolean
  private readonly forgotten: (value: V) => void
  private visited: WeakRef<MapIterator<[K, V]>> | undefined

  constructor(isIdle: (value: V) => boolean, forgotten: (value: V) => void = () => {}) {
    super()
    this.isIdle = isIdle
    this.forgotten = forgotten
  }

  /** The value of a key, which is then the most recently used. */
  use(key: K): V | undefined {
    const found = this.get(key)
    if (found !== undefined && this.delete(key)) this.set(key, found)
    return found
  }

  /** Forgets a value if it is idle, and not forgotten yet. */
  forget(key: K, value: V): void {
    if (this.get(key) !== value || !this.isIdle(value)) return
    this.delete(key)
    this.forgotten(value)
  }

  /** Forgets idle entries until at most `max` are left. It visits at most `upTo` entries, so the cost of a new entry is bounded. */
  shed(max: number, upTo = looks): void {
    for (let left = Math.min(upTo, this.size); left > 0 && this.size > max; left--) {
      const [key, value] = this.next()
      this.delete(key)
      if (this.isIdle(value)) this.forgotten(value)
      else this.set(key, value)
    }
  }

  private next(): [K, V] {
    const found = this.visited?.deref()?.next()
    if (found !== undefined && found.done !== true) return found.value
    const entries = this.entries()
    this.visited = new WeakRef(entries)
    return entries.next().value!
  }
}

/** The value of a key, which is then the most recently used, or a new one. Idle values are forgotten to keep at most `max`. */
export const useOrMake = <K, V>(registry: Registry<K, V>, key: K, max: number, make: () => V): V => {
  const found = registry.use(key)
  if (found !== undefined) return found
  registry.shed(max - 1)
  const made = make()
  registry.set(key, made)
  return made
}
