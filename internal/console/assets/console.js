// Local times, copying, the keyboard and live parts, for pages that work without them.
const $ = (s, of = document) => of.querySelector(s), all = (s, of = document) => [...of.querySelectorAll(s)]
const on = (name, f) => document.addEventListener(name, f), data = document.body.dataset
const zone = Intl.DateTimeFormat().resolvedOptions().timeZone
if (data.zone !== zone)
  document.cookie = `tidings-zone=${encodeURIComponent(zone)};path=${data.base};max-age=31536000;samesite=strict`

const span = (ms) => {
  const s = Math.max(0, ms / 1e3 | 0), m = s / 60 | 0, h = m / 60 | 0, d = h / 24 | 0
  const and = (n, unit) => n ? ` ${n} ${unit}` : ''
  return s < 60 ? s + ' s' : m < 60 ? m + ' min' : h < 24 ? h + ' h' + and(m % 60, 'min')
    : d + ' d' + and(d < 10 && h % 24, 'h')
}
const time = (t) => t.toTimeString().slice(0, 8)
const full = (t) => `${t.toDateString().replace(/ (\w+) 0?(\d+)/, ' $2 $1')}, ${time(t)}`
const clock = (t) => {
  const now = new Date(), age = Math.abs(now - t), text = full(t)
  return age < 864e5 && now.getDate() === t.getDate() ? time(t)
    : age < 6048e5 ? text.slice(0, 4) + time(t) : text.slice(4, -15) + text.slice(-9, -3)
}
const age = (t) => Date.now() - t
const forms = {
  ago: (t) => age(t) < 864e5 ? span(age(t)) + ' ago' : clock(t),
  for: (t) => span(age(t)), in: (t) => age(t) < -1e3 ? 'in ' + span(-age(t)) : 'now', clock, full,
}
const times = () => all('time[data-f]').forEach((e) => {
  const t = new Date(e.dateTime), text = forms[e.dataset.f](t)
  if (e.textContent !== text) e.textContent = text
  e.title = `${full(t)} ${zone}`
})
const ready = () => { times(); all('[data-copy]').forEach((b) => b.hidden = !navigator.clipboard) }
ready()
setInterval(times, 1e3)
$('#zone')?.replaceChildren(zone)
$('.tabs [aria-current]')?.scrollIntoView({block: 'nearest', inline: 'center'})

on('click', (e) => {
  const up = (s) => e.target.closest(s), copy = up('[data-copy]'), open = up('[commandfor]')
  if (up('[aria-disabled=true]')) e.preventDefault()
  else if (copy)
    navigator.clipboard.writeText($('#' + copy.dataset.copy).innerText).then(() => { copy.textContent = 'Copied' })
  else if (open?.dataset.page && !('commandForElement' in open)) location = open.dataset.page
})
on('change', (e) => {
  const page = $('#choose-page'), boxes = all('input[name=event]')
  if (!page) return
  if (e.target === page) boxes.forEach((c) => c.checked = page.checked)
  const n = $('#chosen-count').textContent = boxes.filter((c) => c.checked).length
  page.checked = n === boxes.length
})

let stopped, left
on('keydown', (e) => {
  const {key} = e, focus = document.activeElement
  if (key === 'Escape') focus.blur()
  if (e.ctrlKey || e.metaKey || e.altKey || $('dialog[open]') ||
    focus.matches('input:not([type=checkbox]),textarea,select')) return
  const rows = all('[data-rows] tbody tr'), at = rows.findIndex((r) => r.contains(focus)), step = {j: 1, k: -1}[key]
  if (key === '/') { e.preventDefault(); $('#q')?.focus() }
  else if (step && rows[0]) $('a', rows[Math.max(at + step, 0)] || rows.at(-1)).focus()
  else if (key === '.') { stopped = !stopped; $('#live')?.classList.toggle('live', !stopped) }
  else if (key === '?') $('#keys')?.showModal()
})

// A part in use stays as it is; a list says how many rows are new.
const used = (part) => stopped || part.contains(document.activeElement) || '' + getSelection() ||
  $('details[open],dialog[open],input:checked', part) || part.matches('[data-tail]') && scrollY > 200
const say = (id, n) => { $(id).hidden = !n; $(id + ' b').textContent = n.toLocaleString('en') }
const here = (url) => $('#ended').hidden = !url?.includes('/sign-in?')
on('htmx:beforeRequest', (e) => {
  if (e.target.matches('[data-live]:not([data-tail])') && used(e.target)) e.preventDefault()
})
on('htmx:beforeSwap', ({target, detail: d}) => {
  d.shouldSwap &&= here(d.xhr.responseURL)
  if (!d.shouldSwap || !target.matches('[data-tail]')) return
  const at = (of) => all('tr[data-at]', of).map((r) => r.dataset.at), top = at(target)[0]
  const rows = at(new DOMParser().parseFromString(d.serverResponse, 'text/html'))
  const n = top ? rows.indexOf(top) : rows.length
  left = n < 0 ? rows.at(-1) - top - 1 : 0
  if (!used(target)) return
  d.shouldSwap = false
  say('#more', n < 0 ? rows.length + '+' : n)
})
on('htmx:afterSwap', () => {
  $('#now').dateTime = new Date().toISOString()
  if ($('#left')) say('#left', left)
  ready()
})
const away = (since) => {
  $('#away').hidden = !since
  if (since) $('#away-since').textContent = clock(since)
  all('form[method=post] button').forEach((b) => b.ariaDisabled = since && true)
}
const listen = (pause = 1e3) => {
  const s = new EventSource(data.base + 'live')
  s.onopen = () => { pause = 1e3; away(); here() }
  s.addEventListener('tick', () => htmx.trigger('body', 'tick'))
  s.onerror = async () => {
    s.close()
    setTimeout(listen, pause, Math.min(2 * pause, 15e3))
    const r = await fetch(location).catch(() => 0)
    if (here(r.url) && !(r.status < 500) && $('#away').hidden) away(new Date())
  }
}
if ($('#live')) listen()
