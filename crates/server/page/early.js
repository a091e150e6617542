// Runs before the first paint, so that neither a wrong theme nor a wrong language flashes.
(() => {
  const root = document.documentElement;
  const kept = (name) => {
    try {
      return localStorage.getItem(name);
    } catch {
      return null; // storage may be forbidden; the page works without
    }
  };
  const theme = kept('wushi.theme');
  if (theme === 'light' || theme === 'dark') root.dataset.theme = theme;
  const chosen = kept('wushi.language');
  const wanted = chosen ? [chosen] : navigator.languages ?? [navigator.language];
  const known = wanted.map((tag) => tag.toLowerCase().split('-')[0]).find((tag) => tag === 'zh' || tag === 'en');
  root.lang = known === 'zh' ? 'zh-Hans' : 'en';
})();
