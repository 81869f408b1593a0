/** Maps that forget the least recently used entry. A map keeps the order of insertion, so an entry that is put again is last. */

/** Puts an entry last. Beyond `most` entries the first is removed, and `forgotten` is called with its value. */
export const put = <K, V>(
  map: Map<K, V>,
  key: K,
  value: V,
  most: number,
  forgotten: (value: V) => void = () => {}
): void => {
  map.delete(key)
  map.set(key, value)
  for (const [oldest, gone] of map) {
    if (map.size <= most) return
    map.delete(oldest)
    forgotten(gone)
  }
}

/** Enough that entries in use are three quarters of a table beyond its bound, however many there are. */
const looks = 4

/**
 * Makes room in a map whose entries may be in use. It goes through them from the first one on: an idle one is removed, and one in
 * use becomes the last. It goes on where it stopped, because a map of which much was removed is slow to read from its beginning.
 */
export class Shedder<K, V> {
  private readonly map: Map<K, V>
  private readonly isIdle: (value: V) => boolean
  private readonly forgotten: (value: V) => void
  private entries: MapIterator<[K, V]>

  constructor(map: Map<K, V>, isIdle: (value: V) => boolean, forgotten: (value: V) => void = () => {}) {
    this.map = map
    this.isIdle = isIdle
    this.forgotten = forgotten
    this.entries = map.entries()
  }

  /** Removes idle entries until no more than `max` are left. It looks at `upTo` entries, so that a new one costs the same. */
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
    const found = this.entries.next()
    if (found.done !== true) return found.value
    this.entries = this.map.entries()
    return this.entries.next().value!
  }
}
