// Adds to pages that work without it: local times, copying, the keyboard, older browsers.
(() => {
  const $ = (s, of = document) => of.querySelector(s), all = (s, of = document) => [...of.querySelectorAll(s)]
  const on = (name, f) => document.addEventListener(name, f)
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone
  const base = document.body.dataset.base
  if (zone && document.body.dataset.zone !== zone)
    document.cookie = `tidings-zone=${encodeURIComponent(zone)};path=${base};max-age=31536000;samesite=strict`

  const span = (ms) => {
    const s = Math.max(0, Math.floor(ms / 1000)), m = Math.floor(s / 60), h = Math.floor(m / 60), d = Math.floor(h / 24)
    const two = (a, u, b, v) => b ? `${a} ${u} ${b} ${v}` : `${a} ${u}`
    return s < 60 ? `${s} s` : m < 60 ? `${m} min` : h < 24 ? two(h, 'h', m % 60, 'min')
      : d < 10 ? two(d, 'd', h % 24, 'h') : `${d} d`
  }
  const clock = (t) => {
    const now = new Date(), time = t.toLocaleTimeString('en-GB'), age = Math.abs(now - t)
    if (age < 864e5 && now.getDate() === t.getDate()) return time
    if (age < 6048e5) return `${t.toLocaleDateString('en-GB', {weekday: 'short'})} ${time}`
    return `${t.toLocaleDateString('en-GB', {day: 'numeric', month: 'short'})} ${time.slice(0, 5)}`
  }
  const full = (t) => t.toLocaleDateString('en-GB',
    {weekday: 'short', day: 'numeric', month: 'short', year: 'numeric'}).replace(',', '') + ', ' + t.toLocaleTimeString('en-GB')
  const forms = {
    ago: (t) => Date.now() - t < 864e5 ? span(Date.now() - t) + ' ago' : clock(t),
    for: (t) => span(Date.now() - t), in: (t) => t - Date.now() > 1000 ? 'in ' + span(t - Date.now()) : 'now', clock, full,
  }
  const times = () => all('time[data-f]').forEach((e) => {
    const t = new Date(e.dateTime), text = forms[e.dataset.f](t)
    if (e.textContent !== text) e.textContent = text
    e.title = `${full(t)} ${zone}`
  })
  const ready = () => {
    times()
    all('[data-copy]').forEach((b) => { b.hidden = !navigator.clipboard })
  }
  ready()
  setInterval(times, 1000)
  if ($('#zone')) $('#zone').textContent = zone
  const tab = $('.tabs [aria-current]')
  if (tab && tab.offsetLeft > innerWidth / 2) $('.tabs').scrollLeft = tab.offsetLeft - 16

  on('click', (e) => {
    const copy = e.target.closest('[data-copy]'), open = e.target.closest('[commandfor]')
    const off = e.target.closest('[aria-disabled=true]')
    if (off) e.preventDefault()
    else if (copy) navigator.clipboard.writeText($('#' + copy.dataset.copy).innerText).then(() => { copy.textContent = 'Copied' })
    else if (open && !('commandForElement' in HTMLButtonElement.prototype)) {
      const dialog = document.getElementById(open.getAttribute('commandfor'))
      if (!dialog || !dialog.showModal) location.href = open.dataset.page
      else if (open.getAttribute('command') === 'close') dialog.close()
      else dialog.showModal()
    }
  })
  on('change', (e) => {
    const page = $('#choose-page'), boxes = all('input[name=event]')
    if (e.target === page) boxes.forEach((c) => { c.checked = page.checked })
    const n = boxes.filter((c) => c.checked).length
    if (page) { page.checked = n > 0 && n === boxes.length; $('#chosen-count').textContent = n }
  })

  let stopped = false
  const typing = () => /^(input|textarea|select)$/i.test(document.activeElement?.tagName) && document.activeElement.type !== 'checkbox'
  on('keydown', (e) => {
    if (e.key === 'Escape' && document.activeElement) document.activeElement.blur()
    if (e.ctrlKey || e.metaKey || e.altKey || typing() || $('dialog[open]')) return
    const rows = all('[data-rows] tbody a'), firsts = rows.filter((a, i) => i === 0 || a.closest('tr') !== rows[i - 1].closest('tr'))
    const at = firsts.findIndex((a) => a.closest('tr').contains(document.activeElement))
    if (e.key === '/') { e.preventDefault(); $('#q')?.focus() }
    else if (e.key === 'j') firsts[Math.min(at + 1, firsts.length - 1)]?.focus()
    else if (e.key === 'k') firsts[Math.max(at - 1, 0)]?.focus()
    else if (e.key === '.') { stopped = !stopped; $('#live')?.classList.toggle('live', !stopped) }
    else if (e.key === '?') $('#keys')?.showModal()
  })

  // A part that somebody uses stays as it is.
  on('htmx:beforeRequest', (e) => {
    const part = e.target.closest('[data-live]')
    if (!part) return
    const used = part.contains(document.activeElement) || $('details[open]', part) || $('dialog[open]') ||
      $('input:checked', part) || (part.hasAttribute('data-tail') && scrollY > 200) || String(getSelection())
    if (stopped || used) e.preventDefault()
  })
  on('htmx:beforeSwap', (e) => {
    if (e.detail.xhr.responseURL.includes('/sign-in')) { e.detail.shouldSwap = false; $('#ended').hidden = false }
  })
  on('htmx:afterSwap', () => {
    if ($('#now')) $('#now').dateTime = new Date().toISOString()
    ready()
  })
  const away = (since) => { $('#away').hidden = !since; if (since) $('#away-since').textContent = clock(since) }
  on('htmx:sseError', () => { if ($('#away').hidden) away(new Date()) })
  on('htmx:sseOpen', () => away(null))
})()
