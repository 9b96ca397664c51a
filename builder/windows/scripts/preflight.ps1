# Each fact by itself: one that cannot be had is null, and blocks nothing.
function Get-GiltFact([scriptblock]$ask) {
    try { & $ask } catch { $null }
}
function Invoke-GiltVerb($request) {
    $script:giltStep = 'look'
    $computer = Get-CimInstance -ClassName Win32_ComputerSystem
    $system = Get-CimInstance -ClassName Win32_OperatingSystem
    $version = 'HKLM:\SOFTWARE\Microsoft\Windows NT\CurrentVersion'
    @{
        build = [int](Get-GiltValue $version 'CurrentBuildNumber')
        client = ($system.ProductType -eq 1)
        domainJoined = [bool]$computer.PartOfDomain
        pending = Get-GiltPending @()
        servicing = Test-GiltServicing
        appx = @(Get-GiltFact {
            $provisioned = @(Get-AppxProvisionedPackage -Online | ForEach-Object { $_.DisplayName + '_' + $_.PublisherId })
            Get-AppxPackage -AllUsers | Where-Object { -not $_.NonRemovable -and -not $_.IsFramework -and -not $_.IsResourcePackage } | ForEach-Object {
                $package = $_
                $users = @($package.PackageUserInformation | Where-Object { [string]$_.InstallState -eq 'Installed' } | ForEach-Object { [string]$_.UserSecurityId.Sid })
                if ($users.Count) {
                    @{ name = $package.Name; fullName = $package.PackageFullName; users = $users; provisioned = ($provisioned -contains $package.PackageFamilyName) }
                }
            }
        })
        bitlocker = @(Get-GiltFact { Get-BitLockerVolume | ForEach-Object { @{ drive = [string]$_.MountPoint; status = [string]$_.VolumeStatus } } })
        rearm = Get-GiltFact { (Get-CimInstance -ClassName SoftwareLicensingService).RemainingWindowsReArmCount }
        freeBytes = Get-GiltFact { [long](Get-CimInstance -ClassName Win32_LogicalDisk -Filter "DeviceID='C:'").FreeSpace }
        systemAccount = ([Security.Principal.WindowsIdentity]::GetCurrent().User.Value -eq 'S-1-5-18')
        reservedStorage = Get-GiltFact { (Get-GiltValue 'HKLM:\SOFTWARE\Microsoft\Windows\CurrentVersion\ReserveManager' 'ActiveScenario') -gt 0 }
        services = @(Get-GiltFact { Get-Service -Name 'wuauserv', 'UsoSvc', 'Sense', 'AppXSvc' -ErrorAction SilentlyContinue | ForEach-Object { @{ name = $_.Name; state = [string]$_.Status } } })
        roles = @(Get-GiltFact { Get-WindowsFeature | Where-Object { $_.Installed } | ForEach-Object { [string]$_.Name } })
        imageState = [string](Get-GiltValue 'HKLM:\SOFTWARE\Microsoft\Windows\CurrentVersion\Setup\State' 'ImageState')
        sysprepRuns = Get-GiltFact { Get-GiltValue 'HKLM:\SYSTEM\Setup\Status\SysprepStatus' 'GeneralizationState' }
    }
}
