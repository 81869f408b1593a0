/** Maps that forget what was used least recently. A map keeps the order of insertion, so what is put anew stands last. */

/** Puts a value last; beyond `most` the first goes, of which `forgotten` is told. */
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
