# Runs as SYSTEM: in a remote session the Windows Update Agent refuses to download and to install.
function Get-GiltKbs($update) {
    , @($update.KBArticleIDs | ForEach-Object { 'KB' + $_ })
}
function Get-GiltSearcher($session, [string]$server) {
    $searcher = $session.CreateUpdateSearcher()
    switch ($server) {
        'managed' { $searcher.ServerSelection = 1 }
        'windows-update' { $searcher.ServerSelection = 2 }
        'microsoft-update' { $searcher.ServerSelection = 3; $searcher.ServiceID = '7971f918-a847-4430-9279-4a52d1efe18d' }
    }
    $searcher
}
function Test-GiltWanted($update, $filters) {
    foreach ($filter in $filters) {
        if (@($update | Where-Object -FilterScript $filter.condition).Count) { return $filter.include }
    }
    $false
}
function Install-GiltUpdates($session, $updates) {
    $results = [Collections.ArrayList]::new()
    $collection = New-Object -ComObject Microsoft.Update.UpdateColl
    foreach ($update in $updates) {
        if (-not $update.EulaAccepted) { $update.AcceptEula() }
        [void]$collection.Add($update)
    }
    $restart = $false
    for ($try = 0; $try -lt 3; $try++) {
        $downloader = $session.CreateUpdateDownloader()
        $downloader.Updates = $collection
        [void]$downloader.Download()
        $installer = $session.CreateUpdateInstaller()
        $installer.Updates = $collection
        $installer.AllowSourcePrompts = $false
        $outcome = $installer.Install()
        $results.Clear()
        $again = $false
        for ($at = 0; $at -lt $collection.Count; $at++) {
            $update = $collection.Item($at)
            $one = $outcome.GetUpdateResult($at)
            # WU_E_UH_NEEDANOTHERDOWNLOAD
            if ($one.HResult -eq -2145116147) { $again = $true }
            [void]$results.Add(@{ id = $update.Identity.UpdateID; revision = $update.Identity.RevisionNumber; title = $update.Title; kbs = (Get-GiltKbs $update); code = [int]$one.ResultCode; hresult = [int]$one.HResult })
        }
        $restart = $restart -or $outcome.RebootRequired
        if (-not $again) { break }
    }
    @{ results = $results.ToArray(); restart = $restart }
}
function Add-GiltPackages($parameters) {
    $results = [Collections.ArrayList]::new()
    $restart = $false
    foreach ($file in @($parameters.files)) {
        Write-Output ('adding ' + $file) | Out-Host
        & dism.exe /Online /Add-Package ('/PackagePath:' + $file) /Quiet /NoRestart | Out-Host
        $code = $LASTEXITCODE
        # 0x800f081e, not applicable, is told like any other; the host decides.
        $good = $code -in 0, 3010
        if ($code -eq 3010) { $restart = $true }
        [void]$results.Add(@{ id = [IO.Path]::GetFileName($file); revision = 0; title = [IO.Path]::GetFileName($file); kbs = @([regex]::Matches($file, '(?i)kb\d+') | ForEach-Object { $_.Value.ToUpperInvariant() }); code = $(if ($good) { 2 } else { 4 }); hresult = [int]$(if ($good) { 0 } else { $code }) })
        if (-not $good) { break }
    }
    @{ found = @(); results = $results.ToArray(); rebootRequired = $restart; hresult = 0 }
}
function Invoke-GiltProgramOf($parameters) {
    if ($parameters.action -eq 'offline') { return Add-GiltPackages $parameters }
    $script:giltStep = 'filters'
    $filters = @($parameters.filters | ForEach-Object {
        $kind, $text = ([string]$_).Split(@(':'), 2)
        @{ include = ($kind -eq 'include'); condition = [scriptblock]::Create($text) }
    })
    $script:giltStep = 'search'
    $session = New-Object -ComObject Microsoft.Update.Session
    $session.ClientApplicationID = 'gilt'
    $searcher = Get-GiltSearcher $session $parameters.server
    $search = $searcher.Search($parameters.criteria)
    $wanted = [Collections.ArrayList]::new()
    $seen = @{}
    $found = [Collections.ArrayList]::new()
    for ($at = 0; $at -lt $search.Updates.Count; $at++) {
        $update = $search.Updates.Item($at)
        if ($seen[$update.Identity.UpdateID]) { continue }
        $seen[$update.Identity.UpdateID] = $true
        $bytes = [long]$update.MaxDownloadSize
        Write-Host ('found {0} ({1:n1} MB)' -f $update.Title, ($bytes / 1048576))
        if (-not (Test-GiltWanted $update $filters)) { continue }
        $interactive = [bool]$update.InstallationBehavior.CanRequestUserInput
        $exclusive = ($update.InstallationBehavior.Impact -eq 2)
        [void]$found.Add(@{ id = $update.Identity.UpdateID; revision = $update.Identity.RevisionNumber; title = $update.Title; kbs = (Get-GiltKbs $update); bytes = $bytes; exclusive = $exclusive; interactive = $interactive })
        if ($interactive) { continue }
        # One that must be alone comes alone: the others have their turn in the next round.
        if ($exclusive) { if ($wanted.Count -eq 0) { [void]$wanted.Add($update); break } else { continue } }
        if ($wanted.Count -lt $parameters.limit) { [void]$wanted.Add($update) }
    }
    $installed = @{ results = @(); restart = $false }
    if (($parameters.action -eq 'install') -and $wanted.Count) {
        $script:giltStep = 'install'
        $installed = Install-GiltUpdates $session $wanted
    }
    @{ found = $found.ToArray(); results = @($installed.results); rebootRequired = [bool]$installed.restart; hresult = 0 }
}
